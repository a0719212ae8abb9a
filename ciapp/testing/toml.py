"""TOML files of commits: read by us, outside any sandbox, and so in bounded time; and spoken of by line.

In:  a file's name and text; the path of a key.
Out: the document, or a ProjectError "FILE:LINE: what is wrong"; the line that a key stands on.

tomllib says nothing of positions, so `line_of` walks over the text a second time. It is asked about text that
was parsed before, so it has to tell keys from values, and nothing more.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

from ciapp.errors import ProjectError

#: tomllib's time grows with the square of a key's parts: 32,000 of them in 64 KB took it 19 s. A key is on
#: one line, so the sum over all lines of (dots squared) bounds that time: at this limit, to half a second.
MOST_DOTS_SQUARED = 4_000**2
LONG_NUMBER = re.compile(r"[0-9_]{4301}")  #: what Python refuses
WHERE = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
TOKEN = re.compile(
    r'''
      (?P<text>"""(?:[^\\]|\\.)*?"""+ | \'\'\'.*?\'\'\'+ | "(?:[^"\\\n]|\\.)*" | '[^'\n]*')
    | (?P<comment>\#[^\n]*)
    | (?P<newline>\n)
    | (?P<open>[\[{])
    | (?P<close>[\]}])
    | (?P<equals>=)
    | (?P<bare>[^\s"'\#\[\]{}=.,]+)
    ''',
    re.VERBOSE | re.DOTALL,
)


def parse_toml(name: str, text: str) -> dict[str, Any]:
    """The document. Raises ProjectError for text that is none, or that would take too long to be read."""
    dots = [line.count(".") for line in text.split("\n")]
    if sum(count**2 for count in dots) > MOST_DOTS_SQUARED:
        place = f"{name}:{dots.index(max(dots)) + 1}"
        raise ProjectError(f"{place}: lines with thousands of dots are not read; write them as several lines")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = WHERE.search(str(error))
        reason = WHERE.sub("", str(error))
        if where and where["line"]:
            place, column = f"{name}:{where['line']}", f" (column {where['column']})"
        else:
            place, column = f"{name}:{_line_at(text, len(text.rstrip()))}", " (the file ends there)"
        raise ProjectError(f"{place}: not valid TOML: {reason}{column if where else ''}") from error
    except ValueError as error:
        digits = LONG_NUMBER.search(text)
        place = f"{name}:{_line_at(text, digits.start())}" if digits else name
        raise ProjectError(f"{place}: a number has more digits than are read; write a shorter one") from error
    except RecursionError as error:
        raise ProjectError(f"{name} is nested too deep to be read") from error


def line_of(text: str, path: Sequence[str]) -> int | None:
    """The line of a key, else of what is known to hold it; None when the text has neither."""
    best_depth, best_line = 0, None
    for found, line in _keys(text):
        depth = min(len(found), len(path))
        if depth > best_depth and found[:depth] == tuple(path[:depth]):
            best_depth, best_line = depth, line
    return best_line


def _keys(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Each key of a table and each table's name, from the document's root, with its line.

    Keys of inline tables are passed over: their table stands on the same line.
    """
    table: tuple[str, ...] = ()
    key: list[str] = []
    line, depth = 1, 0
    in_key, in_header = True, False
    for token in TOKEN.finditer(text):
        kind, said = token.lastgroup, token[0]
        if kind == "newline" and depth == 0:
            key, in_key, in_header = [], True, False
        elif not in_key:
            depth += (kind == "open") - (kind == "close" and depth > 0)
        elif kind == "open":
            in_header = True
        elif kind in ("bare", "text"):
            key.append(said if kind == "bare" else str(tomllib.loads(f"key = {said}")["key"]))
        elif kind in ("equals", "close"):
            in_key = False
            table = tuple(key) if in_header else table
            yield (table if in_header else (*table, *key)), line
        line += said.count("\n")


def _line_at(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1
