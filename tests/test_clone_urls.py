"""Mirrors of repositories that come through each protocol that `clone_url` may name."""

from __future__ import annotations

import os
import unittest
from pathlib import Path
from unittest import mock

from ciapp.errors import CheckoutError
from ciapp.testing import mirror
from ciapp.testing.mirror import Mirror
from tests.support.git_repositories import WorkTree, git, new_bare_repository, new_folder
from tests.support.git_servers import HttpServer, PrivateSshd
from tests.support.servers import free_port


class CloneUrls:
    """Mixed into a test case per protocol."""

    def serve(self, repository: Path) -> str:
        """Give a repository away; returns its URL."""
        raise NotImplementedError

    def published(self) -> None:
        """What a server needs done after a push."""

    def setUp(self) -> None:
        self.bare = new_bare_repository(self)
        self.tree = WorkTree(self, self.bare)
        self.mirror = Mirror(new_folder(self) / "state", "team")
        self.url = self.serve(self.bare)

    def ensure(self, commit: str) -> None:
        self.published()
        self.mirror.ensure_commit(self.url, commit)
        git(self.mirror.path, "rev-list", "--objects", "--quiet", commit)

    def test_commits_are_fetched_with_all_they_reach(self) -> None:
        first = self.tree.commit("First", {"a/b.py": "x = 1\n"})
        self.tree.push("main")
        self.ensure(first)
        second = self.tree.commit("Second", {"a/b.py": "x = 2\n"})
        self.tree.git("tag", "--annotate", "--message", "One", "v1")
        self.tree.push("v1")
        self.ensure(second)
        self.assertIn(" refs/tags/v1\n", self.mirror.tag_refs())

    def test_a_tip_that_was_forced_away_is_found_where_it_is_pinned(self) -> None:
        forced_away = self.tree.commit()
        self.tree.push("main")
        git(self.bare, "update-ref", "refs/ciapp/push/1/0", forced_away)
        self.tree.git("commit", "--quiet", "--amend", "--allow-empty", "--message", "Another")
        self.tree.push("+main")
        self.ensure(forced_away)

    def test_a_commit_that_is_not_there_is_said_with_the_url(self) -> None:
        self.tree.commit()
        self.tree.push("main")
        with self.assertRaisesRegex(
            CheckoutError, f"^{'ab' * 20} cannot be fetched from {self.url}: .*doctor"
        ):
            self.ensure("ab" * 20)

    def test_a_server_that_is_not_there_is_said_with_the_url(self) -> None:
        commit = self.tree.commit()
        port = self.url.split(":")[2].split("/")[0]
        self.url = self.url.replace(f":{port}/", f":{free_port()}/")
        with self.assertRaisesRegex(CheckoutError, f"cannot be fetched from {self.url}: "):
            self.ensure(commit)


class TestHttp(CloneUrls, unittest.TestCase):
    def serve(self, repository: Path) -> str:
        return f"{HttpServer(self, repository.parent).url}/{repository.name}"

    def test_a_commit_below_no_ref_is_asked_for_by_its_id(self) -> None:
        gone = self.tree.commit()
        self.tree.push("main")
        self.tree.git("commit", "--quiet", "--amend", "--allow-empty", "--message", "Another")
        self.tree.push("+main")
        self.ensure(gone)


class TestDumbHttp(CloneUrls, unittest.TestCase):
    """A server that knows nothing of git."""

    def serve(self, repository: Path) -> str:
        return f"{HttpServer(self, repository.parent, dumb=True).url}/{repository.name}"

    def published(self) -> None:
        git(self.bare, "update-server-info")


class TestHttps(CloneUrls, unittest.TestCase):
    def serve(self, repository: Path) -> str:
        server = HttpServer(self, repository.parent, encrypted=True)
        trust = mock.patch.dict(os.environ, GIT_SSL_CAINFO=str(server.certificate))
        trust.start()
        self.addCleanup(trust.stop)
        return f"{server.url}/{repository.name}"

    def test_a_server_whose_certificate_nobody_trusts_is_refused(self) -> None:
        commit = self.tree.commit()
        self.tree.push("main")
        del os.environ["GIT_SSL_CAINFO"]
        with self.assertRaisesRegex(CheckoutError, "certificate"):
            self.ensure(commit)


class TestSsh(CloneUrls, unittest.TestCase):
    def serve(self, repository: Path) -> str:
        self.server = PrivateSshd(self)
        self.use(self.server.ssh)
        return self.server.url(repository)

    def use(self, command: str) -> None:
        # As a worker finds it in its environment when it starts.
        patch = mock.patch.dict(mirror.ENVIRONMENT, GIT_SSH_COMMAND=command)
        patch.start()
        self.addCleanup(patch.stop)

    def test_a_host_that_nobody_knows_is_refused_without_a_question(self) -> None:
        commit = self.tree.commit()
        self.tree.push("main")
        (self.server.folder / "known_hosts").write_text("")
        with self.assertRaisesRegex(CheckoutError, f"cannot be fetched from {self.url}: "):
            self.ensure(commit)


if __name__ == "__main__":
    unittest.main()
