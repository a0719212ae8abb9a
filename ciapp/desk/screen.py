"""The terminal of somebody who tests at their own desk: what it shows while tests run, and its Ctrl-C.

In:  what is tested, results as they are settled.
Out: text on stdout, or on stderr where stdout is for one document.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

import click

from ciapp.outlets.live import Live
from ciapp.outlets.terminal import escape_line
from ciapp.testing.desk import Watch
from ciapp.testing.environment import Interpreter
from ciapp.testing.suite import Suite


class Screen:
    """Where a run is shown."""

    def __init__(self, *, verbose: bool = False, to_stderr: bool = False) -> None:
        self._verbose = verbose
        self._to_stderr = to_stderr
        self._told = ""  #: the version of the Python that was introduced last

    def write(self, text: str) -> None:
        """Show a text, which is escaped already."""
        click.echo(text, nl=False, err=self._to_stderr)

    def introduce(self, fields: Mapping[str, str]) -> None:
        """Show facts of what is run, a line each."""
        self.write("".join(f"{name + ':':12} {escape_line(value)}\n" for name, value in fields.items()))

    @contextlib.contextmanager
    def watching(self, should_stop: Callable[[], bool]) -> Iterator[Watch]:
        """Show a run's tests as they are settled, below what they run with."""
        stream = sys.stderr if self._to_stderr else sys.stdout
        live = Live(verbose=self._verbose, color=stream.isatty())
        yield Watch(
            on_ready=self._tell_environment,
            on_progress=lambda told: live.count(told.known, told.done),
            on_settled=lambda found: self.write(live.show(found)),
            should_stop=should_stop,
        )
        self.write(live.end())

    def _tell_environment(self, interpreter: Interpreter, suite: Suite) -> None:
        if self._told == interpreter.version:
            return  # it is the same in each of several runs
        self._told = interpreter.version
        level = suite.sandbox.level
        self.introduce(
            {
                "Environment": f"Python {interpreter.version}, sandbox: {level}",
                "Installed": suite.installation,
            }
        )
        self.write("\n")


@contextlib.contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Take the first Ctrl-C, or SIGTERM, for a wish to stop; a second one interrupts."""
    asked: list[int] = []

    def take(signum: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(signum)

    previous = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
