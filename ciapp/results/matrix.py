"""Environments of runs: the names by which ledger, queues and workers speak of Python versions.

A commit that names versions has a run in "python3.10", one in "python3.13"; one that names none has a single
run in "default", under the Python of whichever worker takes it.
"""

from __future__ import annotations

DEFAULT = "default"
_PREFIX = "python"


def environment_of(version: str) -> str:
    """The environment of a version: "3.13" → "python3.13"."""
    return _PREFIX + version


def version_of(environment: str) -> str:
    """The version of an environment; empty for the default one."""
    return environment.removeprefix(_PREFIX) if environment.startswith(_PREFIX) else ""


def needed_for(environment: str) -> str:
    """What a worker must have for an environment, as sentences put it."""
    return f"Python {version_of(environment)}" if version_of(environment) else "any Python"
