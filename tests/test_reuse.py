"""Results that stand in for runs, and every difference that forbids it; real commits, real runs."""

from __future__ import annotations

import shutil
import unittest
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import msgspec

from ciapp.git import Repository
from ciapp.outlets.junit import to_junit
from ciapp.outlets.text import render_log_line, render_report
from ciapp.progress import runs_line
from ciapp.results.history import commit_log
from ciapp.results.report import Original, Report, Status
from ciapp.results.reruns import rerun
from ciapp.results.retention import Retention, purge
from ciapp.results.runs import Run, claim_run, find_runs, lose_attempt
from ciapp.results.store import report_on, save_report
from ciapp.settings import Limits
from ciapp.show import log_document
from ciapp.testing import fingerprint
from ciapp.testing.fingerprint import take_fingerprint
from ciapp.testing.sandbox import Sandbox
from ciapp.testing.suite import Suite
from ciapp.testing.supervisor import SuitePlan
from tests.support.git_repositories import git, new_bare_repository, new_folder
from tests.support.package_index import PackageIndex, wheel
from tests.support.pipelines import Pipeline
from tests.support.sandboxes import HAS_BUBBLEWRAP, WEAK
from tests.support.services import need

#: A test that gives another reason each time: whoever has the same one was not run.
CHANCE = """\
import os, unittest

class TestChance(unittest.TestCase):
    def test_chance(self):
        self.skipTest(os.urandom(8).hex())

    def test_output(self):
        print("written by a test")
"""
MORE = CHANCE.replace("TestChance", "TestMore")
FILES = {"tests/test_chance.py": CHANCE, "data": "1\n", "uv.lock": "version = 1\n"}


def chance(report: Report) -> str:
    """What no other run of the tests says."""
    [test] = [test for test in report.tests if test.id == "test_chance.TestChance.test_chance"]
    return test.message


class ReuseCase(unittest.TestCase):
    def setUp(self) -> None:
        if not HAS_BUBBLEWRAP:
            need("bubblewrap", "without it no result is reused")
        self.ci = Pipeline(self)
        self.first = self.ci.push_commit(FILES)
        self.assert_tested(self.first)

    def push_tip(self, *options: str) -> Report:
        """Push what HEAD is now; the report of its run."""
        self.ci.push(*options)
        return self.ci.test(self.ci.tree.git("rev-parse", "HEAD"))

    def amend(self, *options: str) -> Report:
        self.ci.tree.git("commit", "--quiet", "--amend", "--message", f"Other words {datetime.now(UTC)}")
        return self.push_tip(*options)

    def assert_reused(self, report: Report, original: Report) -> None:
        assert report.reused_from is not None
        self.assertEqual(original.commit, report.reused_from.commit)
        self.assertEqual((Status.PASSED, chance(original)), (report.status, chance(report)))

    def assert_tested(self, report: Report) -> None:
        self.assertIsNone(report.reused_from)
        self.assertEqual(Status.PASSED, report.status, report.reason)
        if report is not self.first:
            self.assertNotEqual(chance(self.first), chance(report))


class TestSameTree(ReuseCase):
    def test_an_amended_message(self) -> None:
        report = self.amend()
        self.assert_reused(report, self.first)
        self.assertNotEqual(self.first.commit, report.commit)
        self.assertEqual(
            (self.first.counts, self.first.duration_s, self.first.tree, self.first.fingerprint),
            (report.counts, report.duration_s, report.tree, report.fingerprint),
        )
        self.assertEqual(["written by a test\n"], [test.stdout for test in self.first.tests if test.stdout])
        self.assertEqual([], [test.stdout for test in report.tests if test.stdout])

    def test_a_revert_and_a_revert_of_it(self) -> None:
        changed = self.ci.push_commit({"data": "2\n"})
        self.assert_tested(changed)
        self.ci.tree.git("revert", "--no-edit", "HEAD")
        self.assert_reused(self.push_tip(), self.first)
        self.ci.tree.git("revert", "--no-edit", "HEAD")
        self.assert_reused(self.push_tip(), changed)

    def test_a_rebase_that_changes_nothing(self) -> None:
        second = self.ci.push_commit({"data": "2\n"})
        self.ci.tree.git("checkout", "--quiet", "HEAD~1")
        self.ci.tree.git("commit", "--quiet", "--amend", "--message", "Another base")
        self.ci.tree.git("cherry-pick", second.commit)
        self.ci.tree.git("branch", "--force", "main")
        report = self.push_tip()
        self.assert_reused(report, second)
        self.assert_reused(self.ci.test(self.ci.tree.git("rev-parse", "HEAD~1")), self.first)

    def test_a_merge_that_changes_nothing(self) -> None:
        self.ci.tree.git("checkout", "--quiet", "-b", "topic")
        topic = self.ci.push_commit({"data": "2\n"})
        self.ci.tree.git("checkout", "--quiet", "main")
        self.ci.tree.git("merge", "--quiet", "--no-ff", "--no-edit", "topic")
        self.assert_reused(self.push_tip(), topic)

    def test_a_fast_forward_merge_has_the_run_that_is_there(self) -> None:
        self.ci.tree.git("checkout", "--quiet", "-b", "topic")
        topic = self.ci.push_commit({"data": "2\n"})
        self.ci.tree.git("checkout", "--quiet", "main")
        self.ci.tree.git("merge", "--quiet", "--ff-only", "topic")
        self.ci.push()
        self.assertEqual(1, self.ci.run(topic.commit).attempt)

    def test_a_tree_is_what_the_commit_holds_whatever_replace_refs_say(self) -> None:
        self.ci.tree.git("checkout", "--quiet", "-b", "topic")
        red = self.ci.tree.commit("Red", {"tests/test_chance.py": CHANCE.replace("print(", "self.fail(")})
        self.ci.tree.git("replace", red, self.first.commit)
        self.ci.push()
        self.assertEqual(Status.FAILED, self.ci.test(red).status)


class TestOtherContent(ReuseCase):
    def test_a_mode(self) -> None:
        (self.ci.tree.path / "data").chmod(0o755)
        self.assert_tested(self.ci.push_commit({}))

    def test_a_lock_file(self) -> None:
        self.assert_tested(self.ci.push_commit({"uv.lock": "version = 2\n"}))

    def test_a_submodules_commit(self) -> None:
        library = new_bare_repository(self, "library.git")
        tree = git(library, "mktree", stdin="")
        commits = [git(library, "commit-tree", tree, "-m", str(number)) for number in (1, 2)]
        git(library, "update-ref", "refs/heads/main", commits[0])
        git(library, "update-ref", "refs/heads/more", commits[1])
        (self.ci.tree.path / ".git/info/exclude").write_text("/library.git\n")
        library.rename(self.ci.tree.path / "library.git")
        modules = '[submodule "library"]\n\tpath = library\n\turl = ./library.git\n'
        (self.ci.tree.path / ".gitmodules").write_text(modules)
        reports = []
        for commit in (commits[0], commits[1], commits[0]):
            self.ci.tree.git("add", ".gitmodules")
            self.ci.tree.git("update-index", "--add", "--cacheinfo", f"160000,{commit},library")
            self.ci.tree.git("commit", "--quiet", "--message", "Move the submodule")
            reports.append(self.push_tip())
        self.assert_tested(reports[0])
        self.assert_tested(reports[1])
        self.assert_reused(reports[2], reports[0])

    def test_a_commit_may_say_that_nothing_is_to_be_reused(self) -> None:
        report = self.ci.push_commit({".ciapp.toml": "reuse = false\n"})
        self.assertEqual("", report.fingerprint)
        self.assert_tested(self.amend())


class TestOtherSurroundings(ReuseCase):
    def test_server_settings_that_can_change_a_verdict(self) -> None:
        for name, changes in {
            "a limit": {"limits": {"test_s": 59}},
            "a default of the repository": {"repository": {"team": {"project": {"env": {"A": "1"}}}}},
            "the network": {"repository": {"team": {"network": True}}},
            "the sandbox": {"sandbox": WEAK},
        }.items():
            with self.subTest(name):
                ci = Pipeline(self)
                ci.settings = msgspec.convert(
                    {**msgspec.to_builtins(ci.settings), **changes}, type(ci.settings)
                )
                first = ci.push_commit(FILES)
                ci.tree.git("commit", "--quiet", "--amend", "--message", name)
                ci.push()
                ci.settings = msgspec.structs.replace(self.ci.settings, state_dir=ci.settings.state_dir)
                second = ci.test(ci.tree.git("rev-parse", "HEAD"))
                self.assertEqual((Status.PASSED, None), (second.status, second.reused_from))
                self.assertNotEqual(first.fingerprint, second.fingerprint)

    def test_what_is_installed(self) -> None:
        index = PackageIndex(self, wheel("alpha"))
        ci = Pipeline(self, install={"index_url": index.url})
        pinned = FILES | {"requirements.txt": "alpha\n"}
        commits = [ci.tree.commit(str(number), pinned) for number in range(3)]
        ci.push()
        first = ci.test(commits[0])
        self.assertEqual(first.commit, cast(Original, ci.test(commits[1]).reused_from).commit)
        # What was asked for is the same, but what comes is not: as after the environment's removal for room.
        shutil.rmtree(ci.settings.state_path / "environments")
        shutil.rmtree(ci.settings.state_path / "install")
        index.add(wheel("alpha", "2.0"))
        report = ci.test(commits[2])
        self.assertEqual((Status.PASSED, None), (report.status, report.reused_from))

    def test_settings_that_change_no_verdict(self) -> None:
        self.ci.settings = msgspec.structs.replace(self.ci.settings, lease_s=17.0, concurrency=3)
        self.assert_reused(self.amend(), self.first)

    def test_neither_the_network_nor_the_weak_sandbox_lets_a_result_be_reused(self) -> None:
        for changes in ({"repository": {"team": {"network": True}}}, {"sandbox": WEAK}):
            with self.subTest(changes):
                ci = Pipeline(self, **cast(dict[str, Any], changes))
                self.assertEqual("", ci.push_commit(FILES).fingerprint)
                ci.tree.git("commit", "--quiet", "--amend", "--message", "Other words")
                ci.push()
                self.assertIsNone(ci.test(ci.tree.git("rev-parse", "HEAD")).reused_from)


class TestFingerprint(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.site = self.folder / "lib/python3.11/site-packages"
        self.write(
            "six-1.17.dist-info/RECORD", "six.py,sha256=abc,10\nsix-1.17.dist-info/uv_cache.json,x,1\n"
        )
        self.write("by_hand.py", "x = 1")
        self.python = self.folder / "bin/python"
        self.python.parent.mkdir()
        self.python.write_text("an interpreter")
        self.run = cast(Run, SimpleNamespace(repo="team", tree="7" * 40, environment="default"))
        self.level = "bubblewrap"
        self.is_reusable = True
        self.limits = Limits()

    def write(self, name: str, text: str) -> None:
        (self.site / name).parent.mkdir(parents=True, exist_ok=True)
        (self.site / name).write_text(text)

    def take(self, **changes: Any) -> str:
        plan = SuitePlan(
            python=self.python,
            readable=(self.folder,),
            start="tests",
            pattern="test*.py",
            top=".",
            environment={},
            hash_seed=1,
            limits=self.limits,
        )
        suite = Suite(
            plan=msgspec.structs.replace(plan, **changes),
            sandbox=cast(Sandbox, SimpleNamespace(level=self.level)),
            installation="",
            is_reusable=self.is_reusable,
        )
        return take_fingerprint(self.run, suite)

    def test_it_is_the_same_for_the_same(self) -> None:
        first = self.take()
        self.assertRegex(first, "^[0-9a-f]{64}$")
        self.write(
            "six-1.17.dist-info/RECORD", "six.py,sha256=abc,10\nsix-1.17.dist-info/uv_cache.json,y,2\n"
        )
        self.assertEqual(first, self.take())

    def test_it_differs_where_anything_does(self) -> None:
        def other_package() -> None:
            self.write("six-1.17.dist-info/RECORD", "six.py,sha256=def,10\n")
            (self.site / "touched").touch()  # installing and removing changes the folder
            (self.site / "touched").unlink()

        def other_code() -> None:
            patched = mock.patch.object(fingerprint, "_digest_of_code", return_value="other")
            patched.start()
            self.addCleanup(patched.stop)

        def other_version() -> None:
            patched = mock.patch.object(fingerprint, "__version__", "9")
            patched.start()
            self.addCleanup(patched.stop)

        def other_system() -> None:
            status = self.folder / "status"
            status.write_text("Package: libssl\n")
            patched = mock.patch.object(fingerprint, "INSTALLED", (status,))
            patched.start()
            self.addCleanup(patched.stop)

        seen = {self.take()}
        for name, change in {
            "the tree": lambda: setattr(self.run, "tree", "8" * 40),
            "the repository": lambda: setattr(self.run, "repo", "other"),
            "the environment's name": lambda: setattr(self.run, "environment", "3.13"),
            "a limit": lambda: setattr(self, "limits", Limits(memory_mib=4095)),
            "the interpreter": lambda: self.python.write_text("another interpreter"),
            "its library": lambda: (self.folder / "lib/libpython3.so").write_text(""),
            "a new package": lambda: self.write("other-1.dist-info/RECORD", ""),
            "another package of that version": other_package,
            "a module put there by hand": lambda: self.write("more.py", ""),
            "our code": other_code,
            "our version": other_version,
            "a package of the host": other_system,
        }.items():
            with self.subTest(name):
                change()
                taken = self.take()
                self.assertNotIn(taken, seen)
                seen.add(taken)
        for field in ("start", "pattern", "top"):
            self.assertNotIn(self.take(**{field: "other"}), seen)
        self.assertNotIn(self.take(environment={"A": "1"}), seen)
        self.assertNotIn(self.take(hash_seed=2), seen)

    def test_there_is_none_where_more_can_be_seen(self) -> None:
        self.level = "limits"
        self.assertEqual("", self.take())
        self.level, self.is_reusable = "bubblewrap", False
        self.assertEqual("", self.take())


class TestDoubts(ReuseCase):
    def test_a_failure_is_never_reused(self) -> None:
        red = self.ci.push_commit({"tests/test_red.py": CHANCE.replace("print(", "self.fail(")})
        self.assertEqual(Status.FAILED, red.status)
        again = self.amend()
        self.assertEqual((Status.FAILED, None), (again.status, again.reused_from))
        self.assertNotEqual(chance(red), chance(again))

    def test_nor_a_pass_with_a_warning(self) -> None:
        warned = self.ci.push_commit({"tests/more/test_more.py": MORE})
        self.assertIn("1 file not loaded", warned.warnings[0])
        self.assert_tested(self.amend())

    def test_nor_one_after_a_lost_attempt(self) -> None:
        commit = self.ci.tree.commit("Change", {"data": "2\n"})
        self.ci.push()
        run = self.ci.run(commit)
        assert claim_run(self.ci.database, run.id, attempt=1, worker="lost") is not None
        lose_attempt(self.ci.database, run.id, attempt=1, reason="the worker was killed", tries=3)
        self.assert_tested(self.ci.test(commit))
        second = self.amend()
        self.assert_tested(second)
        self.assert_reused(self.amend(), second)

    def test_once_the_same_has_failed_it_is_tested_each_time(self) -> None:
        for accepted in (True, False):
            with self.subTest(accepted=accepted):
                first = self.ci.push_commit({"data": f"{accepted}\n"})
                self.assert_reused(self.amend(), first)
                run = self.ci.run(first.commit)
                rerun(self.ci.database, self.ci.repository.id, first.commit)
                claimed = claim_run(self.ci.database, run.id, attempt=2, worker="here")
                assert claimed is not None
                if not accepted:
                    lose_attempt(self.ci.database, run.id, attempt=2, reason="it was silent", tries=3)
                failed = msgspec.structs.replace(first, status=Status.FAILED, attempt=2)
                self.assertEqual(accepted, save_report(self.ci.database, run.id, failed))
                self.assert_tested(self.amend())

    def test_tests_that_the_parent_had_and_the_result_has_not_are_looked_for(self) -> None:
        self.ci.push_commit({"tests/test_more.py": MORE})
        self.ci.tree.git("revert", "--no-edit", "HEAD")
        report = self.push_tip()
        self.assert_tested(report)
        self.assertIn("2 tests of the parent commit not found", report.warnings[0])


class TestFresh(ReuseCase):
    def test_the_push_option_tests_what_is_new(self) -> None:
        self.assert_tested(self.amend("ci.fresh"))

    def test_the_push_option_tests_tips_again(self) -> None:
        self.ci.tree.git("branch", "other")
        self.ci.push("ci.fresh")
        self.assert_tested(self.ci.test(self.first.commit))
        self.assertEqual(2, self.ci.run(self.first.commit).attempt)

    def test_the_push_option_tests_nothing_that_is_to_be_skipped(self) -> None:
        self.ci.tree.git("branch", "other")
        self.ci.push("ci.fresh", "ci.skip")
        self.assertEqual(Status.PASSED, self.ci.run(self.first.commit).status)

    def test_a_rerun_tests_anew(self) -> None:
        reused = self.amend()
        self.assert_reused(reused, self.first)
        for report in (self.first, reused):
            rerun(self.ci.database, self.ci.repository.id, report.commit)
            self.assert_tested(self.ci.test(report.commit))
            self.assertEqual("", self.ci.run(report.commit).reused_from)

    def test_a_first_run_that_is_asked_for_may_reuse_unless_it_is_to_be_fresh(self) -> None:
        commits = []
        for fresh in (False, True):
            commits.append(self.ci.tree.commit("Nothing"))
            self.ci.push("ci.skip")
            self.assertEqual([], find_runs(self.ci.database, "team", commits[-1:]))
            rerun(self.ci.database, self.ci.repository.id, commits[-1], fresh=fresh)
        self.assert_reused(self.ci.test(commits[0]), self.first)
        self.assert_tested(self.ci.test(commits[1]))

    def test_a_run_that_waits_can_still_be_made_fresh(self) -> None:
        commit = self.ci.tree.commit("Nothing")
        self.ci.push()
        self.assertFalse(rerun(self.ci.database, self.ci.repository.id, commit, fresh=True))
        self.assert_tested(self.ci.test(commit))


class TestShown(ReuseCase):
    def test_everywhere_with_the_commit_that_it_is_from(self) -> None:
        report = self.amend()
        short = self.first.commit[:12]
        self.assertRegex(
            render_report(report),
            rf"\nReused: +the result of the same files in {short}, tested 20.* UTC by worker@here#0\n",
        )
        self.assertIn(f'<property name="reused_from" value="{self.first.commit}"'.encode(), to_junit(report))
        self.assertNotIn("Reused", render_report(self.first))
        self.assertNotIn(b"reused_from", to_junit(self.first))
        run = self.ci.run(report.commit)
        self.assertIn(f"[reused from {short}] Other words", render_log_line(runs_line([run])))
        commits = commit_log(self.ci.database, self.ci.repository, "main", self.ci.settings.host_name, 5)
        [document] = log_document("team", commits)["commits"]
        self.assertEqual([self.first.commit], [one["reused_from"] for one in document["runs"]])

    def test_it_outlives_the_original(self) -> None:
        report = self.amend()
        assert report.reused_from is not None
        self.assertTrue(report.reused_from.is_kept)
        purged = purge(self.ci.database, Retention(keep_runs=1))
        self.assertEqual(1, purged.runs)
        self.assertEqual([], find_runs(self.ci.database, "team", [self.first.commit]))
        kept = report_on(self.ci.database, self.ci.run(report.commit))
        assert kept is not None
        self.assertEqual(report.tests, kept.tests)
        self.assertIn("; its own report was purged\n", render_report(kept))
        # It stands in the original's place, and names it.
        third = self.amend()
        self.assert_reused(third, self.first)
        self.assertFalse(cast(Original, third.reused_from).is_kept)


class TestReplaceRefs(unittest.TestCase):
    def test_git_does_not_follow_them(self) -> None:
        ci = Pipeline(self)
        first, second = ci.tree.commit("One", {"a": "1"}), ci.tree.commit("Two", {"a": "2"})
        ci.tree.git("replace", second, first)
        told = Repository(ci.tree.path / ".git").run("rev-parse", f"{second}^{{tree}}")
        self.assertEqual(ci.tree.git("--no-replace-objects", "rev-parse", f"{second}^{{tree}}"), told)


if __name__ == "__main__":
    unittest.main()
