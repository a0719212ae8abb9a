"""What a fetch that was killed or broke off has left is gone after the next one, and no hindrance to it."""

from __future__ import annotations

import os
import signal
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

from ciapp.errors import CheckoutError, StaleAttemptError
from ciapp.testing import mirror
from ciapp.testing.mirror import UNFINISHED, Mirror
from tests.support.git_repositories import WorkTree, git, new_folder
from tests.support.installation import eventually

#: In place of ssh: of what the other side sends, only the first bytes come through.
BREAKS_OFF = """here() {
    [ "$1" != -G ] || exit 1
    shift
    eval "$*" | { PYTHON -c 'RELAY'; THEN; }
}
here"""
RELAY = """
import os
left = 300000
while left and (part := os.read(0, left)):
    os.write(1, part)
    left -= len(part)
"""


class TestLeftovers(unittest.TestCase):
    def setUp(self) -> None:
        self.state = new_folder(self) / "state"
        self.origin = WorkTree(self, self.state)
        self.url = str(self.origin.path / ".git")
        self.enterContext(mock.patch.dict(mirror.CONFIG, {"transfer.unpackLimit": "1"}))
        self.mirror = Mirror(self.state, "team", should_stop=lambda: self.stop)
        self.stop = False
        self.mirror.ensure_commit(self.url, self.origin.commit())

    @property
    def lock(self) -> Path:
        return self.mirror.path.with_suffix(".lock")

    def fetch(self) -> None:
        """A new commit, with all that it reaches."""
        commit = self.origin.commit("Change", {"a.py": os.urandom(8).hex()})
        self.mirror.ensure_commit(self.url, commit)
        git(self.mirror.path, "rev-list", "--objects", "--quiet", commit)

    def commit_much(self) -> str:
        (self.origin.path / "much").write_bytes(os.urandom(1_000_000))
        return self.origin.commit()

    def temporary_packs(self) -> list[Path]:
        return list(self.mirror.objects.glob("pack/tmp_*"))

    def break_off(self, then: str) -> None:
        """Have what comes through ssh end too soon."""
        command = BREAKS_OFF.replace("PYTHON", sys.executable).replace("RELAY", RELAY).replace("THEN", then)
        self.enterContext(mock.patch.dict(mirror.ENVIRONMENT, {"GIT_SSH_COMMAND": command}))

    def fetch_much(self) -> None:
        self.mirror.ensure_commit(f"ssh://host{self.origin.path}", self.commit_much())

    def test_a_fetch_that_broke_off_takes_no_room(self) -> None:
        self.break_off("exit 1")
        with self.assertRaises(CheckoutError):
            self.fetch_much()
        self.assertEqual([], self.temporary_packs())

    def test_a_fetch_that_was_stopped_takes_no_room(self) -> None:
        self.break_off("sleep 654")
        with ThreadPoolExecutor() as pool:
            fetched = pool.submit(self.fetch_much)
            try:
                eventually(self.temporary_packs, "a part has come")
            finally:
                self.stop = True
            with self.assertRaises(StaleAttemptError):
                fetched.result()
        self.assertEqual([], self.temporary_packs())

    def test_what_a_killed_worker_had_fetched_goes_with_the_next_fetch(self) -> None:
        self.break_off("sleep 2")
        worker = os.fork()
        if worker == 0:
            try:
                self.fetch_much()
            finally:
                os._exit(1)
        try:
            eventually(self.temporary_packs, "a part has come")
        finally:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
        self.assertTrue(self.temporary_packs())
        self.fetch()
        self.assertEqual([], self.temporary_packs())
        self.assertEqual(b"", self.lock.read_bytes())

    def test_files_of_each_stage_go_with_the_next_fetch(self) -> None:
        pack = next(self.mirror.objects.glob("pack/*.pack"))
        (self.mirror.objects / "17").mkdir(exist_ok=True)
        left = [
            self.mirror.path / name
            for name in (
                "packed-refs.lock",
                "packed-refs.new",
                "refs/heads/main.lock",
                "objects/17/tmp_obj_aaaaaa",
                "objects/pack/tmp_idx_aaaaaa",
                "objects/pack/.tmp-17-pack-aa.pack",
                f"objects/pack/pack-{'1' * 40}.pack",
                f"objects/pack/{pack.stem}.keep",
            )
        ]
        for file in left:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        aside = [self.mirror.path.with_suffix(suffix) for suffix in (".new", ".old")]
        for folder in aside:
            folder.mkdir()
        self.lock.write_bytes(UNFINISHED)
        with mock.patch("time.sleep", side_effect=AssertionError("whose they are is known")):
            self.fetch()
        self.assertEqual([], [path for path in (*left, *aside) if path.exists()])
        self.assertTrue(pack.exists())

    def test_without_a_mark_nothing_is_looked_for(self) -> None:
        other = self.mirror.objects / "pack" / "tmp_pack_aaaaaa"
        other.touch()
        self.fetch()
        self.assertTrue(other.exists())
        with mock.patch.object(mirror, "MOST_PACKS", -1):  # but when packs are put in order
            self.fetch()
        self.assertFalse(other.exists())

    def test_a_mirror_that_is_removed_leaves_no_part(self) -> None:
        for suffix in (".new", ".old"):
            self.mirror.path.with_suffix(suffix).mkdir()
        self.assertTrue(self.mirror.remove())
        self.assertEqual(["team.lock"], [path.name for path in self.mirror.path.parent.iterdir()])
        self.assertFalse(self.mirror.remove())


if __name__ == "__main__":
    unittest.main()
