"""The sandbox level of tests that do not say which they want."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ciapp.errors import SandboxError
from ciapp.testing.sandbox import SandboxSetting, check_level


@cache
def usual_level() -> SandboxSetting:
    """ "auto"; where that refuses, as to root without bubblewrap, what it takes to test all the same."""
    try:
        check_level("auto", Path("/tmp"))
    except SandboxError:
        return "off-as-root"
    return "auto"
