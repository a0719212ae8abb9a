"""Hook and dispatcher, killed at each step between the push and the message: nothing is lost or doubled."""

from __future__ import annotations

import os
import shutil
import unittest
from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from ciapp.intake.presence import Presence
from ciapp.intake.spool import STALE_PART_S, spool_folder
from ciapp.results import schema
from ciapp.results.attempts import REPORTED
from ciapp.results.queue import RESEND_AFTER_S
from tests.support.aftermath import assert_nothing_is_left, assert_one_right_report_each
from tests.support.installation import PASSING, Installation, eventually
from tests.support.killed_at import run_killed_at

#: Of the dispatcher, between the spool file and the message; a moment later for each group.
STEPS = (
    (
        "before ciapp.intake.recording:pin",
        "after ciapp.intake.recording:pin",
        "before ciapp.results.pushes:_insert_runs",  # in the transaction
        "after ciapp.results.pushes:_insert_runs",
        "after ciapp.intake.recording:record_push",  # committed
        "after ciapp.intake.spool:SpoolRecord.discard",
        "before ciapp.intake.dispatcher:reserve_runs",
        "after ciapp.intake.dispatcher:reserve_runs",
    ),
    ("after celery.app.task:Task.apply_async",),  # the first message of several
    ("after ciapp.intake.serve:send_runs",),
)
UNPIN_STEPS = (
    "before ciapp.intake.pinning:drop_pins",
    "after ciapp.intake.pinning:drop_pins",
    "before ciapp.intake.pinning:mark_unpinned",
    "after ciapp.intake.pinning:mark_unpinned",
)
#: Kills the hook, whichever of its subshells called; does the command's work before that, or not at all.
KILLER = """#!/bin/sh
WORK
pid=$PPID
while grep -q post-receive /proc/$pid/cmdline; do
    read -r _ _ _ parent _ </proc/$pid/stat
    kill -9 $pid
    pid=$parent
done
touch FOLDER/killed
"""
#: What the hook calls, in its order: the sync, the record's name; then it becomes a dispatcher.
HOOK_COMMANDS = ("dd", "mv", "setsid")


class TestDispatcher(unittest.TestCase):
    def setUp(self) -> None:
        self.ci = Installation(self)
        self.clone = self.ci.make_repository()
        presence = Presence()
        self.addCleanup(presence.close)
        presence.announce(self.ci.folder / "team.git")  # pushes start no dispatcher of their own

    def push(self, number: int) -> list[str]:
        """So many pushes; returns their commits."""
        files = {"tests/test_a.py": PASSING}
        return [self.ci.push_commit(self.clone, files, f"Change {each}") for each in range(number)]

    def test_killed_at_each_step_it_loses_and_doubles_nothing(self) -> None:
        commits = self.push(8)
        for steps in STEPS:
            run_killed_at(self.ci, steps, "dispatcher", "--once")
            self.pass_time(4 * RESEND_AFTER_S)
        self.ci.start_all(slots=2)
        attempts = assert_one_right_report_each(self, self.ci, commits)
        self.assertEqual([[REPORTED]] * len(commits), [[one.ending for one in each] for each in attempts])
        assert_nothing_is_left(self.ci)

    def test_killed_while_it_lets_go_of_pins_it_lets_go_the_next_time(self) -> None:
        self.ci.start("worker", "--concurrency=1")
        commits = self.push(2)
        self.ci.ciapp("dispatcher", "--once")
        assert_one_right_report_each(self, self.ci, commits)
        run_killed_at(self.ci, UNPIN_STEPS[:-1], "dispatcher", "--once")
        run_killed_at(self.ci, UNPIN_STEPS[-1:], "dispatcher", "--once")
        self.ci.ciapp("dispatcher", "--once")
        assert_nothing_is_left(self.ci)

    def pass_time(self, seconds: float) -> None:
        """Let messages that were sent look as old as this."""
        moment = datetime.now(UTC) - timedelta(seconds=seconds + 1)
        with self.ci.database.write() as connection:
            connection.execute(update(schema.runs).values(sent_at=moment))


class TestHook(unittest.TestCase):
    def setUp(self) -> None:
        self.ci = Installation(self, "reconcile_s = 1")
        self.clone = self.ci.make_repository()

    def push_and_kill(self, command: str, when: str) -> str:
        """Push; the hook is killed around that command. The push succeeds all the same."""
        killers = self.ci.folder / "killers"
        killers.mkdir()
        killer = killers / command
        work = f'{shutil.which(command)} "$@"' if when == "after" else ""
        killer.write_text(KILLER.replace("WORK", work).replace("FOLDER", str(killers)))
        killer.chmod(0o755)
        path = self.ci.environment["PATH"]
        self.ci.environment["PATH"] = f"{killers}:{path}"
        commit = self.ci.push_commit(self.clone, {"tests/test_a.py": PASSING}, f"{when} {command}")
        self.ci.environment["PATH"] = path
        # What makes a dispatcher of it goes on when the push has returned.
        eventually((killers / "killed").exists, f"{command} is called")
        shutil.rmtree(killers)
        return commit

    def test_killed_at_each_step_it_loses_and_doubles_no_push(self) -> None:
        commits = []
        for command in HOOK_COMMANDS:
            for when in ("before", "after"):
                if (command, when) == ("setsid", "after"):
                    continue  # it has become the dispatcher, and is no hook any more
                commits.append(self.push_and_kill(command, when))
        self.age_parts()
        self.ci.start_all(slots=2)
        attempts = assert_one_right_report_each(self, self.ci, commits)
        self.assertEqual([[REPORTED]] * len(commits), [[one.ending for one in each] for each in attempts])
        assert_nothing_is_left(self.ci)

    def age_parts(self) -> None:
        """Let what killed hooks left half written look as old as what nobody writes any more."""
        parts = list(spool_folder(self.ci.folder / "team.git").glob(".*.part"))
        self.assertTrue(parts)
        for part in parts:
            moment = part.stat().st_mtime - STALE_PART_S - 1
            os.utime(part, (moment, moment))


if __name__ == "__main__":
    unittest.main()
