"""What may be said about how commits are tested: the model, and its bounds.

In:  a table, of a commit's own configuration or of the server's defaults for a repository.
Out: a `Project`; an UnfitError that names the key and what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from ciapp.validation import explain_validation, invalid_path

LARGEST_ENV_BYTES = 64 << 10  #: the kernel takes 128 KiB for one variable, and starts no program with more
LONGEST_CHECKOUT = 256  #: what `{checkout}` counts for among them
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PYTHON_VERSION = re.compile(r"3\.(0|[1-9][0-9]?)")  #: as settings and commits name one: "3.13"
OLDEST_MINOR = 8  #: of Python 3, that the child runs under
MOST_PYTHONS = 12


class UnfitError(ValueError):
    """A table that is no project."""

    def __init__(self, sentence: str, *path: str) -> None:
        """`path` is the key that the sentence is about."""
        super().__init__(sentence)
        self.sentence, self.path = sentence, path


class UnittestConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the tests are found; paths from the checkout's root."""

    start: str = ""  #: empty: tests/, else test/, else the root
    pattern: str = "test*.py"
    top: str = ""  #: empty: the root when the start folder is a package, else the start folder


class ProjectLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the commit asks to be held to; below the server's limits."""

    test_s: float | None = None
    run_s: float | None = None
    memory_mib: int | None = None


class Project(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a commit may say about how it is tested."""

    python: list[str] = []  #: versions, "3.13"; one run under each; empty: under the worker's own
    #: "auto": what the commit declares; a list: arguments of `uv pip install`; false: nothing
    install: bool | Literal["auto"] | list[str] = "auto"
    reuse: bool = True  #: whether a pass of the same files, tested before, may stand in for a run
    unittest: UnittestConfig = UnittestConfig()
    env: dict[str, str] = {}  #: `{checkout}` in a value stands for the checkout's folder
    limits: ProjectLimits = ProjectLimits()


def check_project(table: dict[str, Any], most: Mapping[str, float]) -> Project:
    """What a table says; `most` are the server's limits. Raises UnfitError."""
    try:
        project = msgspec.convert(table, Project)
    except msgspec.ValidationError as error:
        said, path = explain_validation(error, Project, table), invalid_path(error, Project, table)
        if path == ("install",):
            said = "setting 'install': give \"auto\", false, or a list of arguments of `uv pip install`"
        raise UnfitError(said, *path) from error
    _check_pythons(project.python)
    _check_limits(project.limits, most)
    _check_env(project.env)
    return project


def _check_pythons(versions: list[str]) -> None:
    if len(versions) > MOST_PYTHONS:
        raise UnfitError(f"python has {len(versions)} versions; give at most {MOST_PYTHONS}", "python")
    for number, version in enumerate(versions):
        found = PYTHON_VERSION.fullmatch(version)
        if not found:
            raise UnfitError(f'python has {version!r}; give versions as "3.11"', "python")
        if int(found[1]) < OLDEST_MINOR:
            oldest = f"the oldest that is supported is 3.{OLDEST_MINOR}"
            raise UnfitError(f"python has {version}; {oldest}", "python")
        if version in versions[:number]:
            raise UnfitError(f"python has {version} twice; remove one", "python")


def _check_limits(asked: ProjectLimits, most: Mapping[str, float]) -> None:
    for key, value in msgspec.structs.asdict(asked).items():
        if value is not None and not 0 < value <= most[key]:
            said = f"limits.{key} is {value}; give more than 0 and at most {most[key]}"
            raise UnfitError(said, "limits", key)


def _check_env(env: dict[str, str]) -> None:
    for variable, value in env.items():
        if not VARIABLE.fullmatch(variable) or "\0" in value:
            said = f"{variable!r} cannot be an environment variable; rename it"
            raise UnfitError(said, "env", variable)
    filled = [value.replace("{checkout}", "/" * LONGEST_CHECKOUT) for value in env.values()]
    if sum(len(text.encode()) for text in (*env, *filled)) > LARGEST_ENV_BYTES:
        said = f"env holds more than {LARGEST_ENV_BYTES} bytes; put some of it into a file"
        raise UnfitError(said, "env")
