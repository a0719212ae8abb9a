"""An exception in words, whatever it is.

In:  what a test raised, which may be of any size, and may raise again when it is looked at.
Out: one line, or a traceback, of bounded length.
"""

from __future__ import annotations

import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is not imported: it takes longer than all of this
    from typing import Any

__unittest = True

TEXT_CAP = 128 * 1024  #: characters of a test's tracebacks
MESSAGE_CAP = 500  #: characters of a line
PHASES = ("setUpModule", "setUpClass", "tearDownClass", "tearDownModule")


def cut(text: str, cap: int = TEXT_CAP) -> str:
    """Head and tail of a text that is too long."""
    if len(text) <= cap:
        return text
    half = cap // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"


def headline(error: Any) -> str:
    """One line for an exception, also for one that cannot be looked at."""
    kind, value = error[0], error[1]
    try:
        name = kind.__qualname__
        if kind.__module__ not in ("builtins", "__main__"):
            name = f"{kind.__module__}.{name}"
    except Exception:
        name = "an exception without a name"
    lines = text_of(value)[:10_000].splitlines()
    return (f"{name}: {lines[0]}" if lines else name)[:MESSAGE_CAP]


def describe(error: Any) -> tuple[str, str]:
    """Message and traceback of an exception that unittest did not catch."""
    message = headline(error)
    kind, value, tb = error
    while tb is not None and "__unittest" in tb.tb_frame.f_globals:
        tb = tb.tb_next
    try:
        text = "".join(traceback.format_exception(kind, value, tb))
    except Exception:
        text = f"{message}\n"
    return message, cut(text)


def load_problem(error: Any) -> str:
    """One line for what unittest puts in place of a module: the cause of an import error, which it wraps."""
    text = text_of(error[1])
    if text.startswith("Failed to import test module"):
        return text[-10_000:].splitlines()[-1][:MESSAGE_CAP]
    return headline(error)


def text_of(value: Any) -> str:
    """Its text; a remark where it has none to give."""
    try:
        return str(value).strip()
    except Exception:
        return f"<a {type(value).__name__} whose __str__ raises>"


def fixture_in(tb: Any) -> str:
    """The fixture that a traceback leads through."""
    while tb is not None:
        if tb.tb_frame.f_code.co_name in PHASES:
            return str(tb.tb_frame.f_code.co_name)
        tb = tb.tb_next
    return "the suite"


def test_in(tb: Any, kind: Any) -> Any:
    """The test whose run() a traceback leads through; None where there is none."""
    while tb is not None:
        if tb.tb_frame.f_code.co_name in ("run", "__call__"):
            test = tb.tb_frame.f_locals.get("self")
            if isinstance(test, kind):
                return test
        tb = tb.tb_next
    return None
