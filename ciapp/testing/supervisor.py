"""Run a commit's tests in child processes, and see each of them to its end.

In:  a plan, and a sandbox to start children in.
Out: findings.

    start a child → drain its channels → decide how it ended → start a further one for what is left → conclude

The hard idea: nothing the tests do decides when this ends. Channels are drained whatever is in them, a
process that takes too long is asked for its stacks and then killed, and what a dead child left undone is done
by the next, a bounded number of times.
"""

from __future__ import annotations

import compileall
import marshal
import os
import secrets
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec

from ciapp.results.report import Findings, FixtureResult, Outcome, Status, TestResult
from ciapp.settings import Limits
from ciapp.testing.channels import Channels
from ciapp.testing.exits import CHANNEL_CLOSED, CHILD, explain_exit, without_our_frames
from ciapp.testing.journal import BETWEEN, Journal
from ciapp.testing.output import Outputs
from ciapp.testing.records import Ending, Key, Selection
from ciapp.testing.sandbox import Sandbox, SandboxedProcess
from ciapp.testing.stragglers import GRACE_S
from ciapp.testing.verdict import Close, conclude, count, result_of

DUMP_SIGNAL = signal.SIGRTMAX - 3  #: asks a child for its stacks; none that tests are likely to use

LOOK_EVERY_S = 0.2  #: how often the process, its limits and `should_stop` are looked at
POLL_S = 0.005  #: how often, while its end is awaited
EXIT_GRACE_S = 1.0 + GRACE_S  #: for a thread after the child's last word, with that of what it started
DUMP_GRACE_S = 1.0
QUIET_S = 0.05  #: a stack dump that has not grown for so long is complete
TERM_GRACE_S = 2.0


class SuitePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, and how."""

    python: Path  #: the interpreter
    readable: tuple[
        Path, ...
    ] = ()  #: what the interpreter needs of the host: its installation, an environment
    start: str  #: where discovery starts, relative to the checkout
    pattern: str  #: of test files
    top: str | None  #: the top level directory of the project; None: the start directory
    environment: dict[str, str]
    hash_seed: int  #: PYTHONHASHSEED
    limits: Limits
    known_tests: tuple[Key, ...] = ()  #: of the parent commit's report
    only: tuple[Key, ...] | None = None  #: run nothing else; None: everything
    scopes: tuple[str, ...] = ()  #: modules and classes whose tests are run besides `only`
    names: tuple[str, ...] = ()  #: of those, what unittest's -k takes for these patterns; empty: all


class Progress(msgspec.Struct, frozen=True):
    """How far a run has come, in tests."""

    known: int
    done: int
    failed: int


def run_suite(
    plan: SuitePlan,
    sandbox: Sandbox,
    *,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    on_settled: Callable[[TestResult | FixtureResult], None] = lambda _: None,
) -> Findings:
    """Run the plan's tests; all their processes are gone when this returns or raises.

    `on_progress` is called a few times a second at most, `should_stop` as often: once it says yes, the tests
    are killed and the findings are those of a cancelled run. `on_settled` is called soon after a test has its
    outcome or a fixture has failed; what they wrote may not be there in full. Raises SandboxError when no
    child can be started.
    """
    compile_child(CHILD)
    return _Attempt(plan, sandbox, on_progress, should_stop, on_settled).run()


@cache
def compile_child(folder: Path) -> None:
    """Byte-compile the child for our own version of Python; others compile it at each start, for some 6 ms.

    Inside a sandbox the folder is read-only, so the child cannot leave its byte-code there.
    """
    compileall.compile_dir(folder, quiet=2)


class _Attempt:
    """One call of `run_suite`."""

    def __init__(
        self,
        plan: SuitePlan,
        sandbox: Sandbox,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        on_settled: Callable[[TestResult | FixtureResult], None],
    ) -> None:
        self._plan = plan
        self._sandbox = sandbox
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._on_settled = on_settled
        self._only = None if plan.only is None else frozenset(plan.only)
        self._journal = Journal(Selection(self._only, plan.scopes))
        self._outputs = Outputs(
            test_limit=plan.limits.test_output_kib * 1024, run_limit=plan.limits.run_output_kib * 1024
        )
        self._status: Status | None = None
        self._reason = ""
        self._warnings: list[str] = []
        self._odd_exits: list[str] = []
        self._told = Progress(0, 0, 0)
        self._started_s = time.monotonic()
        self._deadline_s = self._started_s + plan.limits.run_s

    def run(self) -> Findings:
        while True:
            before = self._journal.done + len(self._journal.lost_modules)
            self._run_child()
            if not self._needs_another(before):
                break
        self._tell_progress()
        close = Close(
            status=self._status,
            reason=self._reason,
            odd_exits=tuple(self._odd_exits),
            warnings=tuple(dict.fromkeys(self._warnings)),
            sandbox=self._sandbox.level,
            duration_s=time.monotonic() - self._started_s,
        )
        is_whole = self._only is None and not self._plan.names
        known_tests = self._plan.known_tests if is_whole else ()
        return conclude(self._journal, self._outputs, close, known_tests)

    def _needs_another(self, before: int) -> bool:
        journal = self._journal
        if self._status is not None or journal.setup_problem or journal.child.has_ended:
            return False
        if not journal.child.has_started:
            journal.setup_problem = f"{self._plan.python.name} did not start: {journal.unexplained[-1]}"
            return False
        left = len(journal.left())
        if journal.is_listed and not left and journal.child.is_whole:
            return False
        if journal.child.found_anew and journal.out_of_reach():
            return False  # ids change: the next child would find yet other tests
        if journal.done + len(journal.lost_modules) == before:
            return False  # the next child would end where this one did
        if journal.children > self._plan.limits.restarts:
            self._reason = (
                f"gave up after {count(journal.children, 'child process', 'child processes')} "
                f"that crashed or hung; {count(left, 'test')} not run"
            )
            return False
        return True

    def _run_child(self) -> None:
        nonce = secrets.token_hex(8)
        self._journal.start_child(nonce)
        channels = Channels(self._journal, self._outputs, nonce=nonce)
        try:
            try:
                process = self._start(channels, nonce)
            finally:
                channels.close_child_ends()
            try:
                ending = self._watch(process, channels)
            finally:
                process.kill()
            if process.outlived:
                self._warnings.append("processes that the tests started outlived them, and were killed")
            channels.drain_rest()
            if ending.sentence and channels.dump():
                ending = Ending(ending.outcome, ending.sentence, without_our_frames(channels.dump()))
        finally:
            channels.close()
        if self._journal.child.has_ended and ending.sentence and ending.outcome is not Outcome.NOT_RUN:
            self._journal.fixtures.fail("the exit", "", ending.sentence, ending.dump)
        self._journal.end_child(ending)

    def _start(self, channels: Channels, nonce: str) -> SandboxedProcess:
        plan = self._plan
        orders = {
            "nonce": nonce,
            "events": channels.events,
            "faults": channels.faults,
            "dump": int(DUMP_SIGNAL),
            "start": plan.start,
            "pattern": plan.pattern,
            "top": plan.top,
            "done": self._journal.settled(),
            "only": self._only,
            "scopes": plan.scopes,
            "names": plan.names,
            "skip": tuple(self._journal.lost_modules),
        }
        descriptor = os.memfd_create("orders")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(marshal.dumps(orders, 2))
            os.lseek(descriptor, 0, os.SEEK_SET)
            return self._sandbox.start(
                [str(plan.python), str(CHILD / "__main__.py"), str(descriptor)],
                environment=plan.environment | {"PYTHONHASHSEED": str(plan.hash_seed)},
                stdout=channels.stdout,
                stderr=channels.stderr,
                pass_fds=(descriptor, channels.events, channels.faults),
                readable=(CHILD, *plan.readable),
            )
        finally:
            os.close(descriptor)

    def _watch(self, process: SandboxedProcess, channels: Channels) -> Ending:
        """See the child to its end, or to where it has to be killed."""
        journal, limits = self._journal, self._plan.limits
        look_at_s = now_s = time.monotonic()
        current, current_since_s, mute_since_s = journal.current, now_s, now_s
        while True:
            channels.drain(LOOK_EVERY_S if channels.can_speak else POLL_S, rest=True)
            if journal.child.has_started:
                process.watch_stragglers()
            if journal.child.has_ended:
                return self._let_go(process, channels)
            now_s = time.monotonic()
            if journal.current != current:
                current, current_since_s = journal.current, now_s
            if channels.can_speak:
                mute_since_s = now_s
            if now_s >= look_at_s or not channels.can_speak:
                if process.poll() is not None:
                    return self._take_exit(process, channels)
                if now_s - mute_since_s > EXIT_GRACE_S:
                    return Ending(Outcome.CRASHED, CHANNEL_CLOSED)
            if now_s >= look_at_s:
                look_at_s = now_s + LOOK_EVERY_S
                self._tell_progress()
                if self._should_stop():
                    self._status, self._reason = Status.CANCELLED, "stopped before the tests were done"
                    return Ending(Outcome.NOT_RUN, "running when the tests were stopped")
                if sentence := process.breach():
                    return Ending(Outcome.CRASHED, sentence)
            if now_s > self._deadline_s:
                return self._overrun(process, channels)
            if current is not None and now_s - current_since_s > limits.test_s:
                return self._time_out(process, channels, f"took longer than the limit of {limits.test_s:g} s")

    def _take_exit(self, process: SandboxedProcess, channels: Channels) -> Ending:
        """The process is gone: what it said last decides."""
        channels.drain_rest()
        if self._journal.child.has_ended:
            return self._let_go(process, channels)
        return Ending(Outcome.CRASHED, explain_exit(process.poll()))

    def _overrun(self, process: SandboxedProcess, channels: Channels) -> Ending:
        """The run's time is over."""
        current, run_s = self._journal.current, self._plan.limits.run_s
        self._status = Status.TIMED_OUT
        self._reason = f"the tests took longer than the run's limit of {run_s:g} s"
        # The last test is not to blame for the time that all have taken.
        is_between = current is not None and current[1] == BETWEEN
        outcome = Outcome.NOT_RUN if is_between else Outcome.TIMED_OUT
        return self._time_out(process, channels, f"not done at the end of the run's {run_s:g} s", outcome)

    def _let_go(self, process: SandboxedProcess, channels: Channels) -> Ending:
        """The child has said its last word: a thread may go on for a moment, the exit as long as a test."""
        ending = Ending(Outcome.CRASHED, "")  # nothing is open that it could be the end of
        threads, limits = self._journal.child.threads, self._plan.limits
        started_s = time.monotonic()
        shortly_s, look_at_s = started_s + EXIT_GRACE_S, started_s + LOOK_EVERY_S
        while (status := process.poll()) is None:
            now_s = time.monotonic()
            if threads and now_s > shortly_s:
                said = "the process did not exit after its last test, and was killed; threads: "
                self._warnings.append(said + ", ".join(threads))
                return ending
            if now_s > max(shortly_s, self._deadline_s):
                return self._overrun(process, channels)
            if now_s > max(shortly_s, started_s + limits.test_s):
                self._tell_exit(f"the process did not exit within the limit of {limits.test_s:g} s")
                return self._time_out(process, channels, "did not end in time")
            if now_s >= look_at_s:
                look_at_s = now_s + LOOK_EVERY_S
                self._tell_progress()
                if self._should_stop():
                    self._status, self._reason = Status.CANCELLED, "stopped before the process had exited"
                    return ending
                if sentence := process.breach():
                    self._tell_exit(sentence)
                    return Ending(Outcome.CRASHED, sentence)
            channels.drain(0)
            process.wait(POLL_S)
        if status not in (0, 1) or (self._journal.child.is_good and status != 0):
            self._tell_exit(explain_exit(status))
        return ending

    def _tell_exit(self, sentence: str) -> None:
        """An exit that is no good: the only failure there is, or one more."""
        if self._journal.child.is_good:
            self._odd_exits.append(f"after the last test {sentence}, though none had failed")
        else:
            self._warnings.append(f"after the last test {sentence}")

    def _time_out(
        self,
        process: SandboxedProcess,
        channels: Channels,
        sentence: str,
        outcome: Outcome = Outcome.TIMED_OUT,
    ) -> Ending:
        """Ask for the stacks of a process whose time is over, then for its end."""
        self._journal.stop_hearing()
        process.signal(DUMP_SIGNAL)
        until_s = time.monotonic() + DUMP_GRACE_S
        while time.monotonic() < until_s:
            seen = channels.dump()
            channels.drain(QUIET_S)
            if seen and seen == channels.dump():
                break
        process.signal(signal.SIGTERM)
        until_s = time.monotonic() + TERM_GRACE_S
        while process.poll() is None and time.monotonic() < until_s:
            channels.drain(0)
            process.wait(POLL_S)
        return Ending(outcome, sentence)

    def _tell_progress(self) -> None:
        journal = self._journal
        progress = Progress(len(journal.records), journal.done, journal.failed + len(journal.fixtures.failed))
        if progress != self._told:
            self._told = progress
            self._on_progress(progress)
        news, journal.news = journal.news, []
        for one in news:
            self._on_settled(one if isinstance(one, FixtureResult) else result_of(one, self._outputs))
