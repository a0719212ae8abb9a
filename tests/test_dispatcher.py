"""The dispatcher on real repositories, real pushes through the real hook, and a real ledger.

Only the far end is not there: messages go to a list in place of a broker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import threading
import time
import tracemalloc
import unittest
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import update

from ciapp.errors import BrokerError, LedgerConflictError, LedgerError
from ciapp.git import Repository
from ciapp.intake import dispatcher, recording
from ciapp.intake.dispatcher import Dispatcher
from ciapp.intake.leases import LOOK_COUNTS_S
from ciapp.intake.pins import ORPHAN_S, pin
from ciapp.intake.reconciliation import SETTLE_S
from ciapp.intake.seats import FEWEST_UNDER_WAY
from ciapp.intake.spool import SpoolRecord, read_records, spool_folder
from ciapp.progress import log_line, why_waiting
from ciapp.results import pushes, queue, schema
from ciapp.results.database import Database
from ciapp.results.history import commit_log
from ciapp.results.order import BACKLOG, DEFERRED, TIP
from ciapp.results.pinned import pinned_pushes
from ciapp.results.pushes import find_repository, record_push, seen_refs
from ciapp.results.report import State
from ciapp.results.runs import Run, cancel_run, claim_run, find_runs
from ciapp.results.workers import worker_has_left
from tests.support.dispatching import RECONCILE_S, DispatcherTest, add_worker
from tests.support.git_repositories import ENVIRONMENT, WorkTree, git, new_bare_repository
from tests.support.ledgers import count_queue, fresh_postgresql


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


class TestWhatAPushBrings(DispatcherTest):
    def test_a_first_push_into_an_empty_repository_brings_its_whole_history(self) -> None:
        pushed = self.commits(3)
        self.tree.push("main")
        self.step()

        self.assertEqual(pushed, self.commits_with_run())
        self.assertEqual([], self.records())
        self.assertEqual(pushed[2], self.sent[0][0])

    def test_branches_that_share_commits_bring_each_commit_once(self) -> None:
        [base] = self.commits(1)
        self.tree.git("switch", "--quiet", "-c", "one")
        [one] = self.commits(1, "One")
        self.tree.git("switch", "--quiet", "-c", "two", base)
        [two] = self.commits(1, "Two")
        self.tree.push("main", "one", "two", "two:same")
        self.step()

        self.assertEqual({base, one, two}, set(self.commits_with_run()))
        [log] = [each for each in self.runs() if each.commit == two]
        self.assertEqual({"refs/heads/two", "refs/heads/same"}, set(log.refs))

    def test_a_commit_that_is_pushed_under_a_second_ref_is_not_tested_again(self) -> None:
        pushed = self.commits(1)
        self.tree.push("main")
        self.step()
        self.tree.push("main:other")
        self.step()

        self.assertEqual(pushed, self.commits_with_run())
        self.assertEqual([(pushed[0], 1)], self.sent)

    def test_a_merge_brings_the_merged_commits_and_itself(self) -> None:
        [base] = self.commits(1)
        self.tree.push("main")
        self.step()
        self.tree.git("switch", "--quiet", "-c", "side")
        side = self.commits(2, "Side")
        self.tree.git("switch", "--quiet", "main")
        [main] = self.commits(1, "Main")
        self.tree.git("merge", "--quiet", "--no-ff", "--message", "Merge", "side")
        merge = self.tree.git("rev-parse", "HEAD")
        self.tree.push("main")
        self.step()

        self.assertEqual({base, *side, main, merge}, set(self.commits_with_run()))

    def test_a_force_push_brings_what_replaces_the_old_commits(self) -> None:
        pushed = self.commits(2)
        self.tree.push("main")
        self.step()
        self.tree.git("reset", "--quiet", "--hard", pushed[0])
        [new] = self.commits(1, "Instead")
        self.tree.push("--force", "main")
        self.step()

        self.assertEqual([*pushed, new], self.commits_with_run())

    def test_commits_between_two_quick_force_pushes_are_tested(self) -> None:
        [base] = self.commits(1)
        middle = self.commits(2, "Middle")
        self.tree.push("main")
        self.tree.git("reset", "--quiet", "--hard", base)
        [last] = self.commits(1, "Last")
        self.tree.push("--force", "main")
        git(self.bare, "reflog", "expire", "--expire=now", "--all")
        self.assertEqual(2, len(self.records()))
        self.step()

        self.assertEqual([base, *middle, last], self.commits_with_run())

    def test_an_annotated_tag_brings_the_commit_it_names(self) -> None:
        [commit] = self.commits(1)
        self.tree.git("tag", "--annotate", "--message", "One", "v1")
        self.tree.push("v1")
        self.step()

        self.assertEqual([commit], self.commits_with_run())
        self.assertEqual(("refs/tags/v1",), self.only_run().refs)

    def test_a_deleted_branch_brings_nothing_and_is_no_longer_seen(self) -> None:
        [commit] = self.commits(1)
        self.tree.push("main", "main:side")
        self.step()
        self.tree.push("--delete", "side")
        self.step()

        self.assertEqual([commit], self.commits_with_run())
        self.assertEqual({"refs/heads/main": commit}, seen_refs(self.database, 1))

    def test_a_tag_of_a_blob_brings_nothing_and_it_is_said(self) -> None:
        self.commits(1)
        blob = self.tree.git("hash-object", "-w", "--stdin", stdin="text")
        self.tree.git("tag", "blob", blob)
        self.tree.push("blob")
        with self.assertLogs("ciapp", "INFO") as logged:
            self.step()

        self.assertEqual([], self.commits_with_run())
        [said] = [record for record in logged.records if record.message == "nothing to test"]
        self.assertEqual("refs/tags/blob names a blob, not a commit; there is nothing to test", said.reason)

    def test_a_ref_that_is_neither_branch_nor_tag_is_off(self) -> None:
        self.commits(1)
        self.tree.push("main:refs/changes/1")
        self.step()

        self.assertEqual([], self.commits_with_run())

    def test_a_name_that_no_database_takes_is_off_and_stops_nobody(self) -> None:
        [commit] = self.commits(1)
        long = "refs/heads/" + "/".join(os.urandom(100).hex() for _ in range(16))
        self.tree.push(f"main:{long}", "main:side")
        self.step()
        self.pass_time(RECONCILE_S)
        self.step()
        self.pass_time(SETTLE_S)
        self.step()

        self.assertEqual([commit], self.commits_with_run())
        self.assertEqual({"refs/heads/side": commit}, seen_refs(self.database, 1))

    def test_names_and_subjects_that_are_not_utf_8_are_recorded(self) -> None:
        self.tree.git("commit", "--quiet", "--allow-empty", "--file=-", stdin=b"caf\xe9 \x1b[31m\n")
        self.tree.push(os.fsdecode(b"main:refs/heads/caf\xe9"))
        self.step()
        self.assertEqual((r"refs/heads/caf\xe9",), self.only_run().refs)

        for _ in range(2):
            self.pass_time(RECONCILE_S)
            with self.assertNoLogs("ciapp", "WARNING"):
                self.step()


class TestWhatAPushBringsPostgresql(TestWhatAPushBrings):
    def new_database(self) -> Database:
        return fresh_postgresql(self)


class TestSha256(DispatcherTest):
    init_options = ("--object-format=sha256",)

    def test_a_sha_256_repository_is_served_like_any_other(self) -> None:
        pushed = self.commits(2)
        self.tree.push("main", "main:side")
        self.step()
        self.assertEqual(64, len(pushed[0]))
        self.tree.push("--delete", "side")
        self.step()

        self.assertEqual(pushed, self.commits_with_run())
        self.assertEqual({"refs/heads/main": pushed[1]}, seen_refs(self.database, 1))


class TestPolicy(DispatcherTest):
    def test_a_ref_that_is_off_brings_nothing_until_another_ref_brings_it(self) -> None:
        self.set_repository(refs={"refs/heads/wip/*": "off"})
        pushed = self.commits(2)
        self.tree.push("main:wip/a")
        self.step()
        self.assertEqual([], self.commits_with_run())

        self.tree.push("main")
        self.step()
        self.assertEqual(pushed, self.commits_with_run())

    def test_of_a_ref_that_asks_for_tips_the_tip_alone_is_tested(self) -> None:
        self.set_repository(refs={"refs/heads/wip/*": "tip"})
        first = self.commits(3)
        self.tree.push("main:wip/a")
        second = self.commits(2)
        self.tree.push("main:wip/a")
        self.step()

        self.assertEqual([first[-1], second[-1]], self.commits_with_run())

    def test_a_push_to_both_kinds_tests_all_of_the_one_and_the_tip_of_the_other(self) -> None:
        self.set_repository(refs={"refs/heads/wip/*": "tip"})
        main = self.commits(2)
        self.tree.git("switch", "--quiet", "-c", "wip/a")
        wip = self.commits(3, "Wip")
        self.tree.push("main", "wip/a")
        self.step()

        self.assertEqual([*main, wip[-1]], self.commits_with_run())

    def test_ci_skip_records_without_testing(self) -> None:
        skipped = self.commits(2)
        shown = self.tree.push("-o", "ci.skip", "main")
        self.step()
        self.assertIn("not tested, as ci.skip asks", shown)
        self.assertEqual([], self.commits_with_run())

        [tested] = self.commits(1)
        self.tree.push("main")
        self.step()
        self.assertEqual([tested], self.commits_with_run())
        repository = find_repository(self.database, "team")
        lines = [log_line(each) for each in commit_log(self.database, repository, "main", "here", 9)]
        self.assertEqual(["queued", "not tested", "not tested"], [line.note for line in lines])
        self.assertEqual(skipped[::-1], [line.commit for line in lines[1:]])


class TestOrder(DispatcherTest):
    def test_the_tip_is_sent_first_then_the_backlog_from_the_oldest(self) -> None:
        pushed = self.commits(FEWEST_UNDER_WAY + 3)
        self.tree.push("main")

        self.assertTrue(self.step())
        self.assertEqual([pushed[-1], *pushed[: FEWEST_UNDER_WAY - 1]], [commit for commit, _ in self.sent])

    def test_a_newer_tip_goes_before_an_older_backlog(self) -> None:
        self.commits(FEWEST_UNDER_WAY + 3)
        self.tree.push("main")
        self.step()
        [newer] = self.commits(1)
        self.tree.push("main")
        self.finish_sent()
        self.step()

        self.assertEqual(newer, self.sent[FEWEST_UNDER_WAY][0])

    def test_a_newer_push_puts_off_the_commits_of_a_superseding_ref(self) -> None:
        add_worker(self.database)
        self.set_repository(supersede=["refs/heads/wip/*"])
        old = self.commits(FEWEST_UNDER_WAY + 2, "Old")
        self.tree.push("main:wip/a")
        self.step()
        [new] = self.commits(1, "New")
        self.tree.push("main:wip/a")
        [other] = self.commits(1, "Other")
        self.tree.push("main")
        self.finish_sent()
        self.step()

        self.assertEqual({new, other}, {commit for commit, _ in self.sent[FEWEST_UNDER_WAY:][:2]})
        waiting = [run for run in self.runs() if run.state is State.QUEUED and run.commit in old]
        self.assertEqual({DEFERRED}, {run.priority for run in waiting})
        repository = find_repository(self.database, "team")
        [logged] = commit_log(self.database, repository, waiting[0].commit, "here", 1)
        line = log_line(logged, why_waiting(self.database, repository, logged.runs))
        self.assertEqual(f"deferred behind {new[:12]}", line.note)

        for _ in range(3):
            self.finish_sent()
            self.step()
        self.assertEqual({*old, new, other}, {commit for commit, _ in self.sent})

    def test_a_deferred_commit_that_a_lasting_ref_names_comes_to_the_front_and_stays(self) -> None:
        self.set_repository(supersede=["refs/heads/wip/*"])
        [commit] = self.commits(1)
        self.tree.push("main:wip/a")
        self.commits(1)
        self.tree.push("main:wip/a", f"{commit}:refs/heads/main")
        [later] = self.commits(1)
        self.tree.push(f"{later}:wip/a")
        self.dispatcher.take_in(find_repository(self.database, "team"))

        [run] = [each for each in self.runs() if each.commit == commit]
        self.assertEqual(("refs/heads/main", 2), (run.ref, run.priority))

    def hold_back(self) -> Path:
        """The one record, out of sight as that of a slow hook."""
        [record] = self.records()
        return record.rename(self.bare / record.name)

    def let_in(self, record: Path) -> None:
        record.rename(spool_folder(self.bare) / record.name)
        self.step()

    def priorities(self) -> dict[str, int]:
        return {run.commit: run.priority for run in self.runs()}

    def test_a_record_that_comes_late_does_not_move_its_ref_back(self) -> None:
        [base, middle, first] = self.commits(3)
        self.tree.push(f"{base}:refs/heads/main")
        self.step()
        self.tree.push("main")
        late = self.hold_back()
        [second] = self.commits(1)
        self.tree.push("main")
        self.step()
        self.let_in(late)

        self.assertEqual({"refs/heads/main": second}, seen_refs(self.database, 1))
        wanted = {base: BACKLOG, middle: BACKLOG, first: BACKLOG, second: TIP}
        self.assertEqual(wanted, self.priorities())
        self.assertEqual([], self.records())

    def test_what_a_superseding_ref_has_left_when_its_record_comes_is_deferred(self) -> None:
        self.set_repository(supersede=["refs/heads/wip/*"])
        self.commits(1)
        self.tree.push("main:wip/a")
        self.step()
        [first] = self.commits(1)
        self.tree.push("main:wip/a")
        late = self.hold_back()
        self.tree.git("reset", "--quiet", "--hard", "HEAD~1")
        [second] = self.commits(1, "Instead")
        git(self.bare, "fetch", "--quiet", str(self.tree.path), "+main:wip/a")  # its own hook is lost
        for _ in range(3):
            self.pass_time(RECONCILE_S)
            self.step()
        self.let_in(late)

        self.assertEqual({"refs/heads/wip/a": second}, seen_refs(self.database, 1))
        self.assertEqual((DEFERRED, TIP), (self.priorities()[first], self.priorities()[second]))

    def test_records_that_come_late_of_a_branch_that_came_and_went_change_nothing(self) -> None:
        [base] = self.commits(1)
        self.tree.push("main")
        self.step()
        [side] = self.commits(1)
        self.tree.push("main:side")
        made = self.hold_back()
        self.tree.push("--delete", "side")
        self.step()
        self.let_in(made)
        self.assertEqual({"refs/heads/main": base}, seen_refs(self.database, 1))
        self.assertEqual([base, side], self.commits_with_run())

        self.tree.push("main:side")
        self.step()
        self.tree.push("--delete", "side")
        deleted = self.hold_back()
        self.tree.push("main:side")
        self.step()
        self.let_in(deleted)
        self.assertEqual({"refs/heads/main": base, "refs/heads/side": side}, seen_refs(self.database, 1))

    def finish_sent(self) -> None:
        """Workers have done what they were sent."""
        for commit, _ in self.sent:
            for run in find_runs(self.database, "team", [commit]):
                cancel_run(self.database, run.id)


class TestReconciliation(DispatcherTest):
    def reconcile(self) -> None:
        """Let the dispatcher find a difference, and find it again when it has settled."""
        self.pass_time(RECONCILE_S)
        self.step()
        self.pass_time(SETTLE_S)
        self.step()

    def test_a_push_whose_hook_was_lost_is_found(self) -> None:
        pushed = self.commits(2)
        self.lose_hook()
        self.tree.push("main")
        self.step()
        self.assertEqual([], self.commits_with_run(), "a push may be going on")
        self.pass_time(SETTLE_S - 0.1)
        self.step()
        self.assertEqual([], self.commits_with_run(), "a push may be going on")
        self.pass_time(0.2)
        self.step()

        self.assertEqual(pushed, self.commits_with_run())

    def test_a_ref_that_was_changed_by_hand_is_found(self) -> None:
        self.commits(1)
        self.tree.push("main")
        self.step()
        [commit] = self.commits(1)
        git(self.bare, "fetch", "--quiet", str(self.tree.path), "main:by-hand")
        git(self.bare, "update-ref", "-d", "refs/heads/main")
        self.reconcile()

        self.assertEqual(commit, self.commits_with_run()[-1])
        self.assertEqual({"refs/heads/by-hand": commit}, seen_refs(self.database, 1))

    def lose_the_hook_of(self, *push: str) -> None:
        """A push whose hook leaves no record."""
        self.tree.push(*push)
        for record in self.records():
            record.unlink()

    def test_a_push_whose_hook_was_lost_and_that_was_forced_away_is_found(self) -> None:
        [base] = self.commits(1)
        self.tree.push("main")
        self.step()
        lost = self.commits(2, "Lost")
        self.lose_the_hook_of("main")
        self.tree.git("reset", "--quiet", "--hard", base)
        [last] = self.commits(1, "Last")
        self.tree.push("--force", "main")
        self.step()

        self.assertEqual({base, *lost, last}, set(self.commits_with_run()))
        self.assertEqual({"refs/heads/main": last}, seen_refs(self.database, 1))
        git(self.bare, "reflog", "expire", "--expire=now", "--all")
        git(self.bare, "gc", "--quiet", "--prune=now")
        self.assertTrue(Repository(self.bare).has_commit(lost[1]), "it is pinned while it waits")

    def test_a_push_whose_hook_was_lost_and_whose_branch_is_gone_is_found(self) -> None:
        [base] = self.commits(1)
        self.tree.push("main")
        self.step()
        lost = self.commits(2, "Lost")
        self.lose_the_hook_of("main:side")
        self.tree.push("--delete", "side")
        self.step()

        self.assertEqual([base, *lost], self.commits_with_run())
        self.assertEqual({"refs/heads/main": base}, seen_refs(self.database, 1))

    def assert_nothing_is_open(self, *commits: str) -> None:
        """The ledger has runs of these commits and no others, main alone, and keeps nothing once they end."""
        self.reconcile()
        self.assertEqual(list(commits), self.commits_with_run())
        self.assertEqual(["refs/heads/main"], list(seen_refs(self.database, 1)))
        self.finish_all()
        self.step()
        self.assertEqual([], self.pins())
        self.assertEqual({}, pinned_pushes(self.database, 1))
        sent = len(self.sent)
        with self.assertNoLogs("ciapp", "INFO"):
            for _ in range(3):
                self.reconcile()
        self.assertEqual(sent, len(self.sent))

    def test_of_a_branch_that_came_and_went_by_lost_hooks_nothing_is_known_and_nothing_stays_open(
        self,
    ) -> None:
        [base] = self.commits(1)
        self.tree.push("main")
        self.step()
        self.commits(1, "Lost")
        self.lose_the_hook_of("main:side")
        self.lose_the_hook_of("--delete", "side")

        self.assert_nothing_is_open(base)

    def test_of_a_branch_that_moved_and_went_by_lost_hooks_its_end_is_known_and_nothing_stays_open(
        self,
    ) -> None:
        [base, first] = self.commits(2)
        self.tree.push(f"{base}:refs/heads/main", f"{first}:refs/heads/side")
        self.step()
        self.commits(1, "Lost")
        self.lose_the_hook_of("main:side")
        self.lose_the_hook_of("--delete", "side")

        self.assert_nothing_is_open(base, first)

    def force_two_without_hooks(self, base: str) -> tuple[str, str]:
        """Two pushes in a row whose hooks are lost, the second over the first."""
        [first] = self.commits(1, "First")
        self.lose_the_hook_of("main")
        self.tree.git("reset", "--quiet", "--hard", base)
        [second] = self.commits(1, "Second")
        self.lose_the_hook_of("--force", "main")
        return first, second

    def test_of_two_lost_hooks_in_a_row_the_commits_that_were_forced_away_are_found(self) -> None:
        [old, base] = self.commits(2)
        self.tree.push(f"{old}:refs/heads/main")
        self.tree.push("main")
        self.step()
        first, second = self.force_two_without_hooks(base)
        self.reconcile()

        self.assertEqual({old, base, first, second}, set(self.commits_with_run()))
        self.assertEqual(
            {first: BACKLOG, second: TIP},
            {run.commit: run.priority for run in self.runs() if run.commit in (first, second)},
        )
        self.assertEqual({"refs/heads/main": second}, seen_refs(self.database, 1))
        self.assertEqual([], self.records())

    def test_of_two_lost_hooks_before_a_push_the_commits_that_were_forced_away_are_found(self) -> None:
        [base] = self.commits(1)
        self.tree.push("main")
        self.step()
        first, second = self.force_two_without_hooks(base)
        self.tree.git("reset", "--quiet", "--hard", base)
        [third] = self.commits(1, "Third")
        self.tree.push("--force", "main")
        self.step()

        self.assertEqual({base, first, second, third}, set(self.commits_with_run()))
        self.finish_all()
        self.step()
        self.assertEqual([], self.pins())

    def test_of_a_branch_that_came_by_a_lost_hook_all_values_are_found(self) -> None:
        [base] = self.commits(1)
        first, second = self.force_two_without_hooks(base)
        self.reconcile()
        self.assertEqual({base, first, second}, set(self.commits_with_run()))

    def test_what_a_ref_was_before_it_was_seen_is_not_found(self) -> None:
        [base] = self.commits(1)
        other = new_bare_repository(self, "other.git")
        git(other, "config", "core.logAllRefUpdates", "true")
        for subject in ("Old", "Older"):
            self.tree.git("reset", "--quiet", "--hard", base)
            self.tree.commit(subject)
            self.tree.git("push", "--quiet", "--force", str(other), "main")
        self.install(other)
        self.tree.git("reset", "--quiet", "--hard", base)
        commit = self.tree.commit("New")
        git(other, "fetch", "--quiet", str(self.tree.path), "+main:main")
        for _ in range(2):
            self.reconcile()
        self.assertEqual([commit], self.commits_with_run("other"))

    def test_a_ref_that_keeps_moving_is_not_taken_for_a_lost_push(self) -> None:
        self.lose_hook()
        self.step()
        for _ in range(4):
            self.pass_time(RECONCILE_S)
            self.commits(1)
            self.tree.push("main")
            self.step()
        self.assertEqual([], self.commits_with_run())
        self.pass_time(SETTLE_S)
        self.step()
        self.assertEqual(4, len(self.commits_with_run()))

    def test_local_commits_of_a_repository_with_a_work_tree_are_found(self) -> None:
        local = WorkTree(self, self.bare)
        local.commit("History")
        self.install(local.path, name="local")
        commit = local.commit("Committed here")
        self.pass_time(RECONCILE_S)
        self.reconcile()

        self.assertEqual([commit], self.commits_with_run("local"))

    def test_a_push_that_was_recorded_is_not_found_again(self) -> None:
        self.commits(1)
        self.tree.push("main")
        self.step()
        with self.assertNoLogs("ciapp", "WARNING"):
            self.reconcile()
        self.assertEqual(1, len(self.commits_with_run()))

    def test_the_same_change_may_be_found_again_after_it_was_undone(self) -> None:
        [first, second] = self.commits(2)
        git(self.bare, "fetch", "--quiet", str(self.tree.path), "main:main")
        for value in (second, first, second):
            git(self.bare, "update-ref", "refs/heads/main", value)
            self.reconcile()
            self.assertEqual({"refs/heads/main": value}, seen_refs(self.database, 1))


class TestPins(DispatcherTest):
    def test_tips_are_pinned_until_their_runs_have_ended(self) -> None:
        pushed = self.commits(2)
        self.tree.push("main")
        self.step()
        self.assertEqual([pushed[-1]], self.pins())

        cancel_run(self.database, self.runs()[0].id)
        self.step()
        self.assertEqual([pushed[-1]], self.pins())
        self.finish_all()
        self.step()
        self.assertEqual([], self.pins())

    def test_commits_that_were_pushed_over_outlive_a_garbage_collection(self) -> None:
        [base, lost] = self.commits(2)
        self.tree.push("main")
        self.step()
        self.tree.git("reset", "--quiet", "--hard", base)
        self.commits(1, "Instead")
        self.tree.push("--force", "main")
        self.step()
        self.collect_garbage()
        self.assertTrue(Repository(self.bare).has_commit(lost))

        self.finish_all()
        self.step()
        self.collect_garbage()
        self.assertFalse(Repository(self.bare).has_commit(lost))

    def test_tips_are_pinned_before_the_rows_are_there(self) -> None:
        [commit] = self.commits(1)
        self.tree.push("main")
        with killed_at(self, recording, "record_push"):
            self.step()
        self.assertEqual(([commit], []), (self.pins(), self.commits_with_run()))

        self.step()
        self.finish_all()
        self.step()
        self.assertEqual(([], [commit]), (self.pins(), self.commits_with_run()))

    def test_what_was_pinned_for_a_change_that_was_then_not_recorded_is_let_go(self) -> None:
        self.lose_hook()
        [commit] = self.commits(1)
        self.tree.push("main")
        self.pass_time(RECONCILE_S)
        self.step()
        self.pass_time(SETTLE_S)
        with killed_at(self, recording, "record_push"):
            self.step()
        self.assertEqual(([commit], []), (self.pins(), self.commits_with_run()))
        [later] = self.commits(1)
        self.tree.push("main")
        for _ in range(3):  # it is found again, as part of another change, and recorded
            self.pass_time(RECONCILE_S)
            self.step()
        self.assertEqual([commit, later], self.commits_with_run())
        named = git(self.bare, "for-each-ref", "--format=%(refname)", "refs/ciapp").split()
        self.assertEqual(
            1, len({pin.rpartition("/")[0] for pin in named}), "only what was recorded is pinned"
        )
        self.assertIn(later, self.pins())

        self.finish_all()
        self.step()
        self.assertEqual([], self.pins())

    def test_what_nobody_accounts_for_is_let_go_after_an_hour(self) -> None:
        [commit] = self.commits(1)
        self.tree.push("main")
        self.step()
        pin(Repository(self.bare), "rerun-that-was-killed", [commit])
        self.pass_time(RECONCILE_S)
        self.step()
        self.pass_time(ORPHAN_S - 1)
        self.step()
        self.assertEqual([commit] * 2, self.pins(), "somebody may be recording it")
        self.pass_time(RECONCILE_S)
        self.step()
        self.assertEqual([commit], self.pins())

    def test_past_commits_that_are_to_be_tested_are_pinned_as_well(self) -> None:
        other = new_bare_repository(self, "other.git")
        tree = WorkTree(self, other)
        commit = tree.commit()
        tree.push("main")
        self.install(other, test_tips=True)
        self.assertEqual(commit, git(other, "for-each-ref", "--format=%(objectname)", "refs/ciapp"))

    def test_pins_are_hidden_from_whoever_pushes(self) -> None:
        [commit] = self.commits(1)
        self.tree.push("main")
        self.step()
        [pin] = git(self.bare, "for-each-ref", "--format=%(refname)", "refs/ciapp").split()
        advertised = subprocess.run(
            ["git", "receive-pack", "--advertise-refs", str(self.bare)],
            env=ENVIRONMENT,
            capture_output=True,
            check=True,
        ).stdout
        self.assertIn(commit.encode(), advertised)
        self.assertNotIn(b"refs/ciapp", advertised)
        with self.assertRaisesRegex(AssertionError, "deny deleting a hidden ref"):
            self.tree.push(f":{pin}")

    def collect_garbage(self) -> None:
        git(self.bare, "reflog", "expire", "--expire=now", "--all")
        git(self.bare, "gc", "--quiet", "--prune=now")


class TestRestart(DispatcherTest):
    """Killed at each step between spool file, rows and message: nothing is lost, nothing is doubled."""

    def restart(self) -> None:
        self.dispatcher = self.new_dispatcher()
        self.step()

    def pushed(self) -> str:
        [commit] = self.commits(1)
        self.tree.push("main")
        return commit

    def test_killed_before_the_rows_are_committed(self) -> None:
        commit = self.pushed()
        with killed_at(self, recording, "record_push"):
            self.step()
        self.assertEqual(1, len(self.records()))
        self.restart()

        self.assertEqual(([commit], [(commit, 1)], []), (self.commits_with_run(), self.sent, self.records()))

    def test_killed_in_the_transaction(self) -> None:
        commit = self.pushed()
        with killed_at(self, pushes, "_insert_runs"):
            self.step()
        self.assertEqual([], self.commits_with_run())
        self.restart()

        self.assertEqual(([commit], [(commit, 1)], []), (self.commits_with_run(), self.sent, self.records()))

    def test_killed_between_the_rows_and_the_end_of_the_record(self) -> None:
        commit = self.pushed()
        with killed_at(self, SpoolRecord, "discard"):
            self.step()
        self.assertEqual(([commit], 1), (self.commits_with_run(), len(self.records())))
        self.restart()

        self.assertEqual(([commit], [(commit, 1)], []), (self.commits_with_run(), self.sent, self.records()))

    def test_killed_between_the_rows_and_the_message(self) -> None:
        commit = self.pushed()
        with killed_at(self, dispatcher, "reserve_runs"):
            self.step()
        self.assertEqual(([commit], [], []), (self.commits_with_run(), self.sent, self.records()))
        self.restart()

        self.assertEqual([(commit, 1)], self.sent)

    def test_killed_between_the_reservation_and_the_message(self) -> None:
        commit = self.pushed()
        self.dispatcher = self.new_dispatcher(send=mock.Mock(side_effect=Killed))
        with self.assertRaises(Killed):
            self.step()
        self.restart()
        self.assertEqual([], self.sent, "it may be on its way")

        self.message_was_sent(queue.RESEND_AFTER_S + 1)
        self.step()
        self.assertEqual([(commit, 1)], self.sent)

    def test_killed_after_the_message(self) -> None:
        commit = self.pushed()

        def send_and_die(runs: Sequence[Run]) -> None:
            self.send(runs)
            raise Killed

        self.dispatcher = self.new_dispatcher(send=send_and_die)
        with self.assertRaises(Killed):
            self.step()
        self.restart()
        self.assertEqual([(commit, 1)], self.sent)

        claim_run(self.database, self.only_run().id, attempt=1, worker="w#0")
        self.message_was_sent(queue.RESEND_AFTER_S + 1)
        self.step()
        self.assertEqual([(commit, 1)], self.sent, "a worker has it")

    def test_a_message_that_nobody_answers_is_sent_again_ever_more_rarely(self) -> None:
        commit = self.pushed()
        self.step()
        for patience_s in (15, 30, 60):
            self.message_was_sent(patience_s - 1)
            sent = len(self.sent)
            self.step()
            self.assertEqual(sent, len(self.sent))
            self.message_was_sent(patience_s + 1)
            self.step()
            self.assertEqual([(commit, 1)] * (sent + 1), self.sent)

    def test_a_worker_that_comes_late_soon_gets_what_the_broker_has_lost_long_ago(self) -> None:
        commit = self.pushed()
        for _ in range(10):  # nobody answers for hours
            self.step()
            self.message_was_sent(queue.RESEND_AT_MOST_S + 1)
        add_worker(self.database)
        sent = len(self.sent)
        self.message_was_sent(queue.RESEND_TO_IDLE_AT_MOST_S - 1)
        self.step()
        self.assertEqual(sent, len(self.sent), "it may be just reading it")
        self.message_was_sent(queue.RESEND_TO_IDLE_AT_MOST_S + 1)
        self.step()
        self.assertEqual([(commit, 1)], self.sent[sent:])

    def test_what_waits_for_a_worker_that_has_no_room_is_not_sent_again_until_it_has(self) -> None:
        commit = self.pushed()
        full = "the disk of /var/lib/ciapp is full"
        add_worker(self.database, hindrance=full)
        self.step()
        for _ in range(5):
            self.message_was_sent(queue.RESEND_AT_MOST_S + 1)
            self.step()
        self.assertEqual([(commit, 1)], self.sent)

        add_worker(self.database, name="other@there")  # it may begin what the other one holds
        self.step()
        self.assertEqual([(commit, 1)] * 2, self.sent)
        worker_has_left(self.database, "other@there")
        self.message_was_sent(queue.RESEND_AT_MOST_S + 1)
        self.step()
        self.assertEqual([(commit, 1)] * 2, self.sent)
        add_worker(self.database)
        self.step()
        self.assertEqual([(commit, 1)] * 3, self.sent)
        add_worker(self.database, hindrance=full)
        worker_has_left(self.database, "celery@here")  # nobody knows what it held
        self.message_was_sent(queue.RESEND_AT_MOST_S + 1)
        self.step()
        self.assertEqual([(commit, 1)] * 4, self.sent)

    def message_was_sent(self, seconds_ago: float) -> None:
        moment = datetime.now(UTC) - timedelta(seconds=seconds_ago)
        with self.database.write() as connection:
            connection.execute(update(schema.runs).values(sent_at=moment))


class TestTrouble(DispatcherTest):
    def test_what_the_broker_refuses_is_sent_when_it_takes_it(self) -> None:
        [commit] = self.commits(1)
        self.tree.push("main")
        self.dispatcher = self.new_dispatcher(send=mock.Mock(side_effect=BrokerError("away")))
        for _ in range(2):
            with self.assertRaises(BrokerError):
                self.step()
            self.assertEqual((1, 0), (count_queue(self.database).waiting, count_queue(self.database).sent))
        self.assertEqual([], self.records(), "a push is recorded whether or not there is a broker")

        self.dispatcher = self.new_dispatcher()
        self.step()
        self.assertEqual([(commit, 1)], self.sent)

    def test_the_loop_says_once_that_a_service_is_away_and_once_that_it_is_back(self) -> None:
        self.commits(1)
        self.tree.push("main")
        answers = iter([BrokerError("away"), BrokerError("away"), None])

        def send(runs: Sequence[Run]) -> None:
            if error := next(answers, None):
                raise error
            self.send(runs)

        with self.assertLogs("ciapp", "INFO") as logged:
            self.new_dispatcher(send).run(self.waits(), lambda: len(self.sent) > 0)
        said = [record.message for record in logged.records]
        self.assertEqual(["push recorded", "broker away", "broker back"], said)

    def waits(self, wakes: Callable[[], bool] = lambda: False) -> Any:
        """A presence in which time passes at once; `wakes` says whether a hook ends a wait."""

        def wait(timeout_s: float) -> bool:
            is_woken = wakes()
            self.pass_time(0.25 if is_woken else timeout_s)
            return is_woken

        return mock.Mock(wait=wait)

    def run_for(self, seconds: float, dispatcher: Dispatcher, **waits: Any) -> None:
        until_s = self.time_s + seconds
        dispatcher.run(self.waits(**waits), lambda: self.time_s >= until_s)

    def test_a_broker_that_is_away_is_tried_ever_more_rarely_and_steps_are_as_many_as_ever(self) -> None:
        self.commits(1)
        self.tree.push("main")
        tried, began_s = [], self.time_s

        def send(runs: Sequence[Run]) -> None:
            tried.append(self.time_s - began_s)
            if len(tried) < 7:
                raise BrokerError("away")

        dispatcher = self.new_dispatcher(send)
        with mock.patch.object(dispatcher._leases, "take_back", wraps=dispatcher._leases.take_back) as looks:
            self.run_for(70, dispatcher)
        self.assertEqual([0, 1, 3, 7, 15, 31, 61], tried)
        self.assertEqual(70, looks.call_count)
        self.assertEqual(1, count_queue(self.database).sent)

    def test_with_nothing_to_send_a_broker_that_is_away_is_tried_as_rarely(self) -> None:
        reach = mock.Mock(side_effect=[BrokerError("away")] * 4 + [None])
        dispatcher = Dispatcher(
            self.settings, self.database, self.send, lambda: self.time_s, reach_broker=reach
        )
        with self.assertLogs("ciapp", "INFO") as logged:
            self.run_for(70, dispatcher)
        self.assertEqual(["broker away", "broker back"], [record.message for record in logged.records])
        self.assertEqual(5, reach.call_count)

    def test_a_hook_has_a_broker_that_is_away_tried_once_a_second_and_puts_nothing_off(self) -> None:
        tried, began_s = [], self.time_s

        def reach() -> None:
            tried.append(self.time_s - began_s)
            raise BrokerError("away")

        dispatcher = Dispatcher(
            self.settings, self.database, self.send, lambda: self.time_s, reach_broker=reach
        )
        self.run_for(40, dispatcher, wakes=lambda: 10 <= self.time_s - began_s < 12.5)
        self.assertEqual([0, 1, 3, 7, 10.25, 11.25, 12.25, 13.5, 15.5, 31.5], tried)

    def test_a_ledger_that_is_away_beside_the_broker_is_said_to_be_back(self) -> None:
        steps = [LedgerError("away"), False, False, False]
        reach = mock.Mock(side_effect=[BrokerError("away"), None])
        dispatcher = Dispatcher(
            self.settings, self.database, self.send, lambda: self.time_s, reach_broker=reach
        )
        with (
            mock.patch.object(dispatcher, "step", side_effect=steps) as step,
            self.assertLogs("ciapp", "INFO") as logged,
        ):
            dispatcher.run(self.waits(), lambda: step.call_count == len(steps))
        said = [record.message for record in logged.records]
        self.assertEqual(["ledger away", "ledger back", "broker away", "broker back"], said)

    def test_a_conflict_with_another_transaction_gives_nobody_a_new_lease(self) -> None:
        self.claimed()
        dispatcher = self.new_dispatcher()

        def watch(seconds: float) -> None:
            for _ in range(round(seconds)):
                self.pass_time(1)
                dispatcher._leases.take_back()

        dispatcher._leases.take_back()
        watch(self.settings.lease_s - 1)
        self.assertEqual(State.RUNNING, self.only_run().state)
        step = mock.Mock(side_effect=[LedgerConflictError("deadlock detected"), False])
        pauses = mock.Mock(wait=mock.Mock(return_value=True), announce=mock.Mock())
        with mock.patch.object(dispatcher, "step", step), self.assertLogs("ciapp", "WARNING") as logged:
            dispatcher.run(pauses, lambda: step.call_count > 1)
        self.assertEqual(["step given up"], [record.message for record in logged.records])
        watch(2)
        self.assertEqual(State.QUEUED, self.only_run().state)

    def test_the_run_of_a_worker_that_fell_silent_is_sent_again(self) -> None:
        run = self.claimed()
        self.step()
        while self.only_run().state is State.RUNNING:
            self.pass_time(LOOK_COUNTS_S)
            self.step()

        self.assertEqual([(run.commit, 1), (run.commit, 2)], self.sent)

    def test_two_dispatchers_of_one_ledger_send_each_run_once(self) -> None:
        pushed = self.commits(40)
        self.tree.push("main")
        others = [self.new_dispatcher() for _ in range(2)]
        gate = threading.Barrier(2)
        failed: list[BaseException] = []

        def serve(one: Dispatcher) -> None:
            gate.wait()
            try:
                for _ in range(20):
                    one.step()
                    self.finish_sent()
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=serve, args=(one,)) for one in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        self.assertEqual([], failed)
        self.assertEqual(pushed, self.commits_with_run())
        self.assertEqual(sorted((commit, 1) for commit in pushed), sorted(self.sent))

    def test_a_repository_that_vanished_does_not_stop_the_others_and_is_said_once(self) -> None:
        other = new_bare_repository(self, "another.git")
        self.install(other)
        shutil.rmtree(other)
        [commit] = self.commits(1)
        self.tree.push("main")
        with self.assertLogs("ciapp", "ERROR") as logged:
            self.step()
            self.step()

        self.assertEqual([(commit, 1)], self.sent)
        [said] = logged.records
        self.assertEqual(("repository cannot be served", "another"), (said.message, said.repo))

    def test_a_repository_that_cannot_be_looked_at_does_not_stop_the_others(self) -> None:
        other = new_bare_repository(self, "another.git")
        self.install(other)
        with self.database.write() as connection:
            # As a folder that may not be entered, which root may.
            changed = update(schema.repositories).where(schema.repositories.c.name == "another")
            connection.execute(changed.values(git_dir="/" + 300 * "x"))
        [commit] = self.commits(1)
        self.tree.push("main")
        with self.assertLogs("ciapp", "ERROR") as logged:
            self.step()
        self.assertEqual([(commit, 1)], self.sent)
        self.assertEqual(["another"], [said.repo for said in logged.records])

    def test_a_repository_whose_rows_the_ledger_refuses_does_not_stop_the_others(self) -> None:
        other = new_bare_repository(self, "another.git")
        self.install(other)
        tree = WorkTree(self, other)
        tree.commit("Poison")
        tree.push("main")
        [commit] = self.commits(1)
        self.tree.push("main")

        def refuse(database: Database, repository_id: int, *rest: Any) -> Any:
            if repository_id != 1:
                raise LedgerError("ledger: value too long")
            return record_push(database, repository_id, *rest)

        with mock.patch.object(recording, "record_push", refuse), self.assertLogs("ciapp", "ERROR"):
            self.step()
        self.assertEqual([(commit, 1)], self.sent)

    def test_a_fault_of_ours_that_one_repository_brings_out_does_not_stop_the_others(self) -> None:
        other = new_bare_repository(self, "another.git")
        self.install(other)
        [commit] = self.commits(1)
        self.tree.push("main")

        def stumble(git_dir: Path) -> list[SpoolRecord]:
            if git_dir == other:
                raise UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")
            return read_records(git_dir)

        with (
            mock.patch.object(dispatcher, "read_records", stumble),
            self.assertLogs("ciapp", "ERROR") as logged,
        ):
            self.step()
            self.step()
        self.assertEqual([(commit, 1)], self.sent)
        [said] = logged.records
        self.assertEqual(("repository cannot be served", "another"), (said.message, said.repo))
        self.assertIn("in stumble", logging.Formatter().format(said))

    def test_a_ledger_that_is_away_is_no_fault_of_a_repository(self) -> None:
        self.commits(1)
        self.tree.push("main")
        away = LedgerError("ledger: connection refused")
        with (
            mock.patch.object(recording, "record_push", side_effect=away),
            mock.patch.object(Database, "revision", side_effect=away),
            self.assertNoLogs("ciapp", "ERROR"),
            self.assertRaises(LedgerError),
        ):
            self.step()
        self.assertEqual(1, len(self.records()))

    def test_a_broken_repository_is_served_again_when_it_is_mended(self) -> None:
        [commit] = self.commits(1)
        self.tree.push("main")
        (self.bare / "HEAD").rename(self.bare / "HEAD.lost")
        with self.assertLogs("ciapp", "ERROR"):
            self.step()
        (self.bare / "HEAD.lost").rename(self.bare / "HEAD")
        self.step()
        self.assertEqual([(commit, 1)], self.sent)

    def test_a_push_that_cannot_be_read_for_a_while_is_tested_once_it_can(self) -> None:
        [base] = self.commits(1)
        self.tree.push("main")
        self.step()
        [commit] = self.commits(1)
        self.tree.push("main", "main:new")
        git(self.bare, "repack", "--quiet", "-d")
        [pack] = (self.bare / "objects/pack").glob("*.pack")
        # To git, what is in a pack that it cannot open is missing, and there is nothing else to say.
        lost = pack.rename(pack.with_suffix(".lost"))
        with self.assertLogs("ciapp", "ERROR") as logged:
            self.step()
        self.assertIn("cannot be read", logged.records[0].error)
        lost.rename(pack)
        self.step()
        self.assertEqual([base, commit], self.commits_with_run())
        self.assertEqual([], self.records())

    def test_a_push_that_cannot_be_read_for_a_while_is_tested_though_others_came_after_it(self) -> None:
        [base] = self.commits(1)
        self.tree.push("main")
        self.step()
        [first] = self.commits(1)
        self.tree.push("main")
        [second] = self.commits(1)
        self.tree.push("main")
        [forced] = self.commits(1)
        self.tree.push("main")
        self.tree.git("reset", "--quiet", "--hard", second)
        [last] = self.commits(1)
        self.tree.push("+main")
        git(self.bare, "repack", "--quiet", "-a", "-d", "--keep-unreachable")
        [pack] = (self.bare / "objects/pack").glob("*.pack")
        lost = pack.rename(pack.with_suffix(".lost"))
        with self.assertLogs("ciapp", "ERROR"):
            self.step()
        self.assertEqual([base], self.commits_with_run())
        lost.rename(pack)
        self.step()
        self.assertEqual({base, first, second, forced, last}, set(self.commits_with_run()))
        self.assertEqual([], self.records())

    def claimed(self) -> Run:
        self.commits(1)
        self.tree.push("main")
        self.step()
        run = claim_run(self.database, self.only_run().id, attempt=1, worker="w#0")
        assert run is not None
        return run

    def finish_sent(self) -> None:
        for run in self.runs():
            if run.sends:
                cancel_run(self.database, run.id)


class TestManyCommits(DispatcherTest):
    NUMBER = 10_000

    def push_many(self) -> None:
        lines = []
        for number in range(self.NUMBER):
            text = f"Number {number}"
            lines.append(f"commit refs/heads/main\ncommitter Ann <ann@example.org> {1000 + number} +0000")
            lines.append(f"data {len(text)}\n{text}")
        self.tree.git("fast-import", "--quiet", stdin="\n".join([*lines, ""]))
        self.tree.push("main")

    def test_ten_thousand_commits_are_recorded_within_seconds_and_with_bounded_memory(self) -> None:
        self.push_many()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        started = time.process_time()
        with self.assertLogs("ciapp", "INFO") as logged:
            self.dispatcher.take_in(find_repository(self.database, "team"))
        took_s = time.process_time() - started
        _, peak = tracemalloc.get_traced_memory()

        self.assertEqual(self.NUMBER, count_queue(self.database).waiting)
        told = [record.commits for record in logged.records if record.message == "push is being recorded"]
        self.assertEqual([2500, 5000, 7500, 10000], told)
        # Processor time, measured under tracemalloc, which makes it about three times as long.
        self.assertLess(took_s, 20)
        self.assertLess(peak, 20 << 20)


class TestManyCommitsPostgresql(TestManyCommits):
    def new_database(self) -> Database:
        return fresh_postgresql(self)


@contextlib.contextmanager
def killed_at(test: unittest.TestCase, place: Any, name: str) -> Iterator[None]:
    """Die where a function of this place is called."""
    with test.assertRaises(Killed), mock.patch.object(place, name, side_effect=Killed):
        yield


if __name__ == "__main__":
    unittest.main()
