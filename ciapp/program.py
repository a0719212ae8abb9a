"""The program's words and output, where click would make a verdict of what is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click


class ReaderGoneError(Exception):
    """Whoever read what we print has gone, as `head` does."""


class Program(click.Group):
    """The commands. click itself would end with 1, the verdict "not passed", when the reader has gone."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Read the words, and print what --help asks for."""
        with _reader_watched():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _reader_watched():
            return super().invoke(ctx)


@contextmanager
def _reader_watched() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGoneError from error
