"""Several hosts: a worker that shares nothing with the git host but the broker, the database and a URL.

The hosts are state folders and names of their own on this machine; the repository comes by git's protocol.
"""

from __future__ import annotations

import unittest

import pytest

from ciapp.results.report import Status
from tests.support.installation import PASSING, RabbitmqPostgresql, RedisPostgresql, eventually
from tests.support.servers import free_port, listens


class Hosts:
    """Mixed into a test case per broker."""

    def test_a_worker_on_another_host_fetches_through_the_clone_url(self):
        port = free_port()
        ci = self.install('host = "git-host"')
        clone = ci.make_repository()
        ci.start("dispatcher")
        daemon = ["git", "daemon", f"--base-path={ci.folder}", "--export-all", f"--port={port}"]
        daemon += ["--listen=127.0.0.1", "--reuseaddr"]
        ci.start_program(*daemon, log="daemon")
        eventually(lambda: listens(port), "git daemon listens")
        text = ci.config.read_text().replace('"git-host"', '"worker-host"')
        text = text.replace(str(ci.folder / "state"), str(ci.folder / "worker-state"))
        worker_config = ci.folder / "worker.toml"
        worker_config.write_text(
            f'{text}\n[repository.team]\nclone_url = "git://127.0.0.1:{port}/team.git"\n'
        )
        ci.start("--config", str(worker_config), "worker", "--concurrency=1", log="worker")

        commit = ci.push_commit(clone, {"tests/test_a.py": PASSING})
        self.assertEqual(Status.PASSED, ci.report(commit).status)
        self.assertTrue((ci.folder / "worker-state" / "mirrors" / "team.git").is_dir())
        self.assertFalse((ci.folder / "state" / "mirrors").exists())
        self.assertIn("worker-host", ci.ciapp("status", "--json"))

    def test_a_commit_pushed_over_while_it_waited_is_still_fetched_and_tested(self):
        ci = self.install()
        clone = ci.make_repository()
        ci.start("dispatcher")
        first = ci.push_commit(clone, {"tests/test_a.py": PASSING}, "First")
        eventually(lambda: ci.runs(first), "the first push is recorded")
        ci.git("commit", "--quiet", "--amend", "--message", "Second", cwd=clone)
        second = ci.git("rev-parse", "HEAD", cwd=clone)
        ci.push(clone, "--force", "origin", "HEAD:main")
        eventually(lambda: ci.runs(second), "the second push is recorded")
        ci.git("--git-dir", str(ci.folder / "team.git"), "gc", "--quiet", "--prune=now")
        ci.start("worker", "--concurrency=1")
        self.assertEqual(Status.PASSED, ci.report(first).status)
        self.assertEqual(Status.PASSED, ci.report(second).status)
        pins = ("--git-dir", str(ci.folder / "team.git"), "for-each-ref", "refs/ciapp/")
        eventually(lambda: not ci.git(*pins), "the pins are gone once the runs have ended")


class TestRabbitmqPostgresql(RabbitmqPostgresql, Hosts, unittest.TestCase):
    pass


@pytest.mark.slow  # how a repository is fetched is the same whatever the broker is
class TestRedisPostgresql(RedisPostgresql, Hosts, unittest.TestCase):
    pass


if __name__ == "__main__":
    unittest.main()
