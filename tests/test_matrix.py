"""The environments of commits, read from real repositories, and what becomes of a commit that has several."""

from __future__ import annotations

import time
import tracemalloc
import unittest
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from sqlalchemy import update

from ciapp.git import Repository
from ciapp.intake import matrix
from ciapp.intake.matrix import Matrix
from ciapp.intake.push import single_commits
from ciapp.intake.seats import FEWEST_UNDER_WAY
from ciapp.results import queue, schema
from ciapp.results.database import Database
from ciapp.results.matrix import DEFAULT, environment_of, version_of
from ciapp.results.order import DEFERRED, TIP
from ciapp.results.pushes import find_repository
from ciapp.results.queue import count_queues
from ciapp.results.report import State
from ciapp.results.runs import Run, claim_run
from ciapp.results.workers import worker_has_left
from ciapp.testing.project import LARGEST_BYTES
from tests.support.dispatching import DispatcherTest, add_worker
from tests.support.ledgers import fresh_postgresql

TWO = {".ciapp.toml": 'python = ["3.10", "3.13"]'}
BOTH = ("python3.10", "python3.13")


class MatrixTest(DispatcherTest):
    """Workers that take some environments, and commits that name some."""

    def setUp(self) -> None:
        super().setUp()
        self.tasks: list[tuple[str, str]] = []  #: commit and environment of each message

    def send(self, runs: Sequence[Run]) -> None:
        super().send(runs)
        self.tasks += [(run.commit, run.environment) for run in runs]

    def push_commit(self, files: Mapping[str, str]) -> str:
        commit = self.tree.commit("Change", files)
        self.tree.push("main")
        self.step()
        return commit

    def environments(self, commit: str) -> tuple[str, ...]:
        return tuple(run.environment for run in self.runs() if run.commit == commit)

    def start_worker(self, name: str, *environments: str, slots: int = 1) -> None:
        add_worker(self.database, *environments, name=name, slots=slots)

    def sent_to(self, *environments: str) -> list[str]:
        return [commit for commit, environment in self.tasks if environment in environments]


class TestEnvironments(MatrixTest):
    def test_a_version_has_an_environment_and_an_environment_a_version(self) -> None:
        self.assertEqual("python3.13", environment_of("3.13"))
        self.assertEqual(("3.13", ""), (version_of("python3.13"), version_of(DEFAULT)))

    def test_a_commit_that_names_no_version_has_one_run_in_the_default_environment(self) -> None:
        for files in ({}, {".ciapp.toml": "python = []"}, {"pyproject.toml": "[project]\nname = 'x'"}):
            with self.subTest(files):
                self.assertEqual((DEFAULT,), self.environments(self.push_commit(files)))

    def test_a_commit_has_a_run_for_each_version_it_names_in_their_order(self) -> None:
        shared = {"pyproject.toml": '[tool.ciapp]\npython = ["3.13", "3.9", "3.10"]'}
        self.assertEqual(
            ("python3.13", "python3.9", "python3.10"), self.environments(self.push_commit(shared))
        )
        self.assertEqual(BOTH, self.environments(self.push_commit(TWO)), "the own file wins")

    def test_each_commit_of_a_push_has_what_it_names_itself(self) -> None:
        first = self.tree.commit("First", {"a": ""})
        second = self.tree.commit("Second", TWO)
        third = self.tree.commit("Third", {".ciapp.toml": 'python = ["3.12"]'})
        again = self.tree.commit("Again", TWO)
        self.tree.push("main")
        self.step()
        self.assertEqual(
            [(DEFAULT,), BOTH, ("python3.12",), BOTH],
            [self.environments(commit) for commit in (first, second, third, again)],
        )

    def test_the_servers_defaults_stand_where_a_commit_says_nothing(self) -> None:
        self.set_repository(project={"python": ["3.12"]})
        self.assertEqual(("python3.12",), self.environments(self.push_commit({"a": ""})))
        self.assertEqual(("python3.12",), self.environments(self.push_commit({".ciapp.toml": ""})))
        self.assertEqual(BOTH, self.environments(self.push_commit(TWO)))
        self.assertEqual((DEFAULT,), self.environments(self.push_commit({".ciapp.toml": "python = []"})))

    def test_what_cannot_be_used_is_one_run_in_the_default_environment(self) -> None:
        self.set_repository(project={"python": ["3.12"]})
        huge = "#" * LARGEST_BYTES + '\npython = ["3.10"]'
        for text in ("python = [", "python = 3", 'python = ["2.7"]', 'python = ["3.10"]\nnonsense = 1', huge):
            with self.subTest(text[:20]):
                self.assertEqual((DEFAULT,), self.environments(self.push_commit({".ciapp.toml": text})))
        self.assertEqual((DEFAULT,), self.environments(self.push_file(".ciapp.toml", b"python = ['\xff']")))

    def test_a_link_and_a_folder_of_that_name_are_read_by_nobody(self) -> None:
        self.set_repository(project={"python": ["3.12"]})
        (self.tree.path / "versions").write_text('python = ["3.10"]')
        (self.tree.path / ".ciapp.toml").symlink_to("versions")
        self.assertEqual((DEFAULT,), self.environments(self.push_commit({})))
        (self.tree.path / ".ciapp.toml").unlink()
        self.assertEqual((DEFAULT,), self.environments(self.push_commit({".ciapp.toml/a": ""})))

    def test_commits_that_are_not_to_be_tested_are_not_read(self) -> None:
        self.set_repository(refs={"refs/heads/*": "tip"})
        self.tree.commit("First", {".ciapp.toml": 'python = ["3.9"]'})
        with mock.patch.object(matrix, "read_project", wraps=matrix.read_project) as read:
            tip = self.push_commit(TWO)
        self.assertEqual((1, BOTH), (read.call_count, self.environments(tip)))
        self.assertEqual([tip, tip], [run.commit for run in self.runs()])

    def test_one_configuration_is_read_once_however_many_commits_share_it(self) -> None:
        with mock.patch.object(matrix, "read_project", wraps=matrix.read_project) as read:
            self.tree.commit("First", TWO)
            for number in range(20):
                self.tree.commit(f"Change {number}", {"a": str(number)})
            self.push_commit({"pyproject.toml": "[project]"})
        self.assertEqual((1, 44), (read.call_count, len(self.runs())))

    def test_more_configurations_than_are_read_in_one_push_are_said(self) -> None:
        text = TWO[".ciapp.toml"]
        texts = [f"{text} # {number}" for number in range(1000, 1005)]
        commits = [self.tree.commit("Change", {".ciapp.toml": each}) for each in texts]
        several = mock.patch.object(matrix, "MOST_BYTES", 2 * len(texts[0]))
        with several, self.assertLogs("ciapp", "WARNING") as logged:
            self.tree.push("main")
            self.step()
        self.assertEqual(2 * 2 + 3, len(self.runs()))
        self.assertEqual({*BOTH, DEFAULT}, {run.environment for run in self.runs()})
        self.assertEqual(set(commits), {run.commit for run in self.runs()})
        [said] = logged.records
        self.assertIn("more configurations in one push than are read", said.message)

    def test_recording_a_push_again_changes_nothing(self) -> None:
        commit = self.push_commit(TWO)
        self.tree.push("main:other")
        self.step()
        self.assertEqual(BOTH, self.environments(commit))

    def push_file(self, name: str, content: bytes) -> str:
        (self.tree.path / name).write_bytes(content)
        return self.push_commit({})


class TestQueues(MatrixTest):
    def test_each_environment_is_sent_to_workers_that_take_it(self) -> None:
        self.start_worker("old", DEFAULT, "python3.10", slots=4)
        self.start_worker("new", DEFAULT, "python3.13", slots=4)
        commit = self.push_commit(TWO)
        self.assertEqual({(commit, environment) for environment in BOTH}, set(self.tasks))

    def test_runs_that_no_worker_takes_never_block_others(self) -> None:
        self.start_worker("old", DEFAULT, "python3.10", slots=2)
        waiting = [self.tree.commit("Waits", {".ciapp.toml": f'python = ["3.99"] # {n}'}) for n in range(50)]
        self.tree.push("main")
        self.step()
        self.assertEqual(FEWEST_UNDER_WAY, len(self.tasks))
        commit = self.push_commit(TWO)
        self.assertEqual([commit], self.sent_to("python3.10"))
        last = self.push_commit({".ciapp.toml": ""})
        self.assertEqual([last], self.sent_to(DEFAULT))
        self.assertLessEqual(set(self.sent_to("python3.99")), set(waiting))

    def test_a_version_that_no_worker_has_makes_nobody_look_again_and_again(self) -> None:
        self.start_worker("old", DEFAULT)
        for number in range(FEWEST_UNDER_WAY + 1):
            self.tree.commit("Waits", {".ciapp.toml": f'python = ["3.99"] # {number}'})
        self.tree.push("main")
        self.assertFalse(self.step())
        self.start_worker("new", "python3.99")
        self.assertTrue(self.step())

    def test_what_waited_is_sent_once_a_worker_has_the_version(self) -> None:
        for number in range(20):
            self.tree.commit("Waits", {".ciapp.toml": f'python = ["3.99"] # {number}'})
        self.tree.push("main")
        self.step()
        self.assertEqual(FEWEST_UNDER_WAY, len(self.tasks))
        self.start_worker("new", "python3.99", slots=9)
        self.step()
        self.assertEqual(9 + 2, len(self.tasks))

    def test_the_tip_in_all_its_environments_goes_before_the_backlog(self) -> None:
        self.start_worker("all", DEFAULT, *BOTH, slots=2)
        commits = [self.tree.commit("Change", TWO | {"a": str(number)}) for number in range(4)]
        self.tree.push("main")
        self.step()
        self.assertEqual(
            [*[(commits[-1], one) for one in BOTH], *[(commits[0], one) for one in BOTH]], self.tasks
        )

    def test_a_newer_push_puts_off_all_runs_of_what_it_supersedes(self) -> None:
        self.set_repository(supersede=["refs/heads/*"])
        old = self.push_commit(TWO)
        new = self.push_commit(TWO | {"a": ""})
        priorities = {(run.commit, run.environment): run.priority for run in self.runs()}
        wanted = {(old, DEFERRED), (new, TIP)}
        self.assertEqual({(commit, one): priority for commit, priority in wanted for one in BOTH}, priorities)

    def test_a_lost_message_is_not_sent_again_while_no_worker_takes_it(self) -> None:
        commit = self.push_commit(TWO)
        self.assertEqual(2, len(self.tasks))
        self.messages_were_sent(queue.RESEND_AFTER_S + 1)
        self.step()
        self.assertEqual(2, len(self.tasks))
        self.start_worker("new", "python3.13")
        self.step()
        self.assertEqual([(commit, "python3.13")], self.tasks[2:])

    def test_a_message_that_an_idle_worker_does_not_answer_is_sent_again_soon(self) -> None:
        self.start_worker("busy", DEFAULT, *BOTH)
        self.start_worker("other", "python3.10")
        commit = self.push_commit(TWO)
        first = next(run for run in self.runs() if run.environment == "python3.13")
        claim_run(self.database, first.id, attempt=1, worker="busy#0")
        self.messages_were_sent(queue.RESEND_TO_IDLE_AFTER_S - 1)
        self.step()
        self.assertEqual(2, len(self.tasks))
        self.messages_were_sent(queue.RESEND_TO_IDLE_AFTER_S + 1)
        self.step()
        self.assertEqual([(commit, "python3.10")], self.tasks[2:])
        worker_has_left(self.database, "other")
        self.messages_were_sent(queue.RESEND_AFTER_S * 2 - 1)
        self.step()
        self.assertEqual(3, len(self.tasks), "the worker that is left is busy")

    def test_pins_stay_until_all_runs_of_the_tip_have_ended(self) -> None:
        commit = self.push_commit(TWO)
        self.finish(commit, "python3.10")
        self.step()
        self.assertEqual([commit], self.pins())
        self.finish(commit, "python3.13")
        self.step()
        self.assertEqual([], self.pins())

    def finish(self, commit: str, environment: str) -> None:
        with self.database.write() as connection:
            runs = schema.runs.c
            connection.execute(
                update(schema.runs)
                .where(runs.commit == commit, runs.environment == environment)
                .values(state=State.FINISHED, status="passed", finished_at=datetime.now(UTC))
            )

    def messages_were_sent(self, seconds_ago: float) -> None:
        moment = datetime.now(UTC) - timedelta(seconds=seconds_ago)
        with self.database.write() as connection:
            connection.execute(update(schema.runs).values(sent_at=moment))


class TestQueuesPostgresql(TestQueues):
    def new_database(self) -> Database:
        return fresh_postgresql(self)


class TestManyConfigurations(MatrixTest):
    NUMBER = 10_000

    @pytest.mark.slow
    def test_ten_thousand_commits_with_two_environments_are_recorded_in_bounded_time_and_memory(self) -> None:
        lines = []
        for number in range(self.NUMBER):
            text = f'python = ["3.10", "3.13"] # {number // 10}'
            lines.append(f"commit refs/heads/main\ncommitter Ann <ann@example.org> {1000 + number} +0000")
            lines.append(f"data 1\nx\nM 644 inline .ciapp.toml\ndata {len(text)}\n{text}")
        self.tree.git("fast-import", "--quiet", stdin="\n".join([*lines, ""]))
        self.tree.push("main")
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        started = time.process_time()
        self.dispatcher.take_in(find_repository(self.database, "team"))
        took_s = time.process_time() - started
        _, peak = tracemalloc.get_traced_memory()

        counts = count_queues(self.database)
        self.assertEqual(
            [(one, self.NUMBER) for one in BOTH], sorted((e, c.waiting) for e, c in counts.items())
        )
        # Processor time, measured under tracemalloc, which makes it about three times as long.
        self.assertLess(took_s, 40)
        self.assertLess(peak, 20 << 20)

    def test_large_configurations_take_no_more_memory_than_one_of_them(self) -> None:
        for number in range(12):
            comment = f"# {number}\n" * (LARGEST_BYTES // 8)
            self.tree.commit("Change", {"pyproject.toml": comment})
        repository = find_repository(self.database, "team")
        self.tree.push("main")
        tips = self.tree.git("rev-list", "main").split()
        commits = list(single_commits(Repository(self.bare), tips))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        found = Matrix(self.settings, repository).environments(commits)
        _, peak = tracemalloc.get_traced_memory()
        self.assertEqual([(DEFAULT,)] * 12, found)
        self.assertLess(peak, 5 << 20)


if __name__ == "__main__":
    unittest.main()
