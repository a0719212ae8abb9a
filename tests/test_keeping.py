"""`ciapp purge`, `backup` and `restore` as a user calls them."""

from __future__ import annotations

import os
import tempfile
import unittest
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from click.testing import CliRunner, Result

from ciapp.cli import cli
from ciapp.errors import UsageError
from ciapp.results.database import Database
from ciapp.results.runs import claim_run, find_runs
from ciapp.results.store import make_report, save_report
from tests.support.ledgers import add_repository, commit, findings, push


class TestKeeping(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CIAPP_")}
        state = {"CIAPP_STATE_DIR": folder.name, "HOME": folder.name}
        patch = mock.patch.dict(os.environ, kept | state, clear=True)
        patch.start()
        self.addCleanup(patch.stop)
        self.database = Database(f"sqlite:///{self.folder / 'ledger.sqlite3'}")
        self.database.migrate()

    def filled(self) -> None:
        """Three runs that finished 100, 10 and 0 days ago; one that waits."""
        repository = add_repository(self.database)
        for number, days in enumerate((100, 10, 0)):
            push(self.database, repository, commit(number))
            [run] = find_runs(self.database, "team", [commit(number).id])
            run = claim_run(self.database, run.id, attempt=1, worker="w#0")
            ended_at = datetime.now(UTC) - timedelta(days=days)
            save_report(self.database, run.id, make_report(run, findings(), finished_at=ended_at))
        push(self.database, repository, commit(9))

    def left(self) -> list[int]:
        found = find_runs(self.database, "team", [commit(number).id for number in range(10)])
        return [int(run.commit, 16) for run in found]

    def call(self, *words: str) -> Result:
        return CliRunner().invoke(cli, words)

    def test_purge_says_what_it_deletes_and_a_dry_run_what_it_would(self):
        self.filled()
        would = self.call("purge", "--keep", "90d", "--dry-run")
        self.assertRegex(would.output, r"^would delete 1 run and \d+ bytes of reports\n$")
        self.assertEqual([0, 1, 2, 9], self.left())
        done = self.call("purge", "--keep", "90d")
        self.assertEqual(would.output.replace("would delete", "deleted"), done.output)
        self.assertEqual([1, 2, 9], self.left())
        self.assertIn("deleted 2 runs", self.call("purge", "--max-bytes", "0K").output)

    def test_purge_without_options_follows_the_settings_and_refuses_to_guess(self):
        self.filled()
        refused = self.call("purge")
        self.assertIsInstance(refused.exception, UsageError)
        self.assertIn("nothing says what to keep; give --keep", str(refused.exception))
        with mock.patch.dict(os.environ, CIAPP_RETENTION_KEEP_RUNS="1"):
            self.call("purge")
        self.assertEqual([2, 9], self.left())

    def test_a_duration_or_a_size_that_is_none_is_refused(self):
        self.assertIn("'90' is no duration; give hours", self.call("purge", "--keep", "90").output)
        self.assertIn("'-1G' is no size; give bytes", self.call("purge", "--max-bytes", "-1G").output)

    def test_a_backup_is_restored_over_what_came_later_only_with_replace(self):
        self.filled()
        file = str(self.folder / "backup")
        self.assertIn("backed up 4 runs and 3 reports", self.call("backup", file).output)
        self.call("purge", "--keep-runs", "0")
        self.assertIsInstance(self.call("restore", file).exception, UsageError)
        self.assertEqual([9], self.left())

        restored = self.call("restore", file, "--replace").output

        self.assertIn("restored 4 runs and 3 reports as of 20", restored)
        self.assertIn("queued again: 1 unfinished run\n", restored)
        self.assertEqual([0, 1, 2, 9], self.left())


if __name__ == "__main__":
    unittest.main()
