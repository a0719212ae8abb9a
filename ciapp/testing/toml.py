"""TOML files of commits: read by us, outside any sandbox, and so in bounded time.

In:  a file's name and text.
Out: its tables; a ProjectError with the file's name when it is no TOML, or none that can be read.
"""

from __future__ import annotations

import tomllib
from typing import Any

from ciapp.errors import ProjectError

#: tomllib's time grows with the square of a key's parts: 32,000 of them in 64 KB took it 19 s. A key is on
#: one line, so the sum over all lines of (dots squared) bounds that time: at this limit, to half a second.
MOST_DOTS_SQUARED = 4_000**2


def parse_toml(name: str, text: str) -> dict[str, Any]:
    """The tables of a commit's file; `name` is for the sentence of the ProjectError."""
    if sum(line.count(".") ** 2 for line in text.split("\n")) > MOST_DOTS_SQUARED:
        raise ProjectError(f"{name} has lines with thousands of dots; write them as several lines")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProjectError(f"{name} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise ProjectError(f"{name} is nested too deep to be read") from error
