"""The whole walk with a worker that fetches from the git host by ssh."""

from __future__ import annotations

import unittest

from ciapp.results.report import Status
from tests.support.git_servers import PrivateSshd
from tests.support.installation import FAILING, PASSING, Embedded


class TestSsh(Embedded, unittest.TestCase):
    def test_pushed_commits_are_fetched_by_ssh_and_tested(self):
        ci = self.install()
        git_host = PrivateSshd(self)
        url = git_host.url(ci.folder / "team.git")
        with ci.config.open("a") as config:
            config.write(f'[repository.team]\nclone_url = "{url}"\n')
        clone = ci.make_repository()
        ci.start("dispatcher")
        ci.start("worker", "--concurrency=1", GIT_SSH_COMMAND=git_host.ssh)

        broken = ci.push_commit(clone, {"tests/test_a.py": FAILING}, "Break it")
        self.assertEqual(Status.FAILED, ci.report(broken).status)
        fixed = ci.push_commit(clone, {"tests/test_a.py": PASSING}, "Fix it")
        self.assertEqual(Status.PASSED, ci.report(fixed).status)

        said = (git_host.folder / "server.log").read_text()
        self.assertEqual(2, said.count("Accepted publickey"), said)


if __name__ == "__main__":
    unittest.main()
