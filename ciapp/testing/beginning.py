"""A first `.ciapp.toml` for a project, from what is found in it.

In:  a working tree.
Out: the file's text. What says anything but what holds anyway is written; the rest is there as comments.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import msgspec

from ciapp.errors import ProjectError, UsageError
from ciapp.project import OLDEST_MINOR, UnittestConfig
from ciapp.settings import Limits
from ciapp.testing.install import decide_installation
from ciapp.testing.metadata import PYPROJECT
from ciapp.testing.project import OWN_FILE, START_FOLDERS, load_project
from ciapp.testing.schema import FILE as SCHEMA
from ciapp.testing.toml import parse_toml
from ciapp.testing.tree import WorkingTree

SCHEMA_FILE = ".ciapp.schema.json"
PATTERNS = (UnittestConfig().pattern, "*_test.py", "*_tests.py", "*Test.py", "*Tests.py")
NEWEST_MINOR = 14  #: of Python 3, that the child runs under
CLAUSE = re.compile(r"\s*(?P<sign>>=|<=|==|!=|~=|>|<)\s*3(?:\.(?P<minor>\d+))?(?P<rest>(?:\.[\d*]+)*)\s*")
BEFORE_4 = re.compile(r"\s*<=?\s*4(\.0)*\s*")
SIGNS = {
    ">=": int.__ge__,
    "<=": int.__le__,
    ">": int.__ge__,  # 3.11.1 is above 3.11
    "<": int.__lt__,
    "==": int.__eq__,
    "!=": int.__ne__,
    "~=": int.__ge__,
}


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where the tests of a project are, as its files say."""

    start: str = ""  #: empty: where they are looked for anyway
    pattern: str = ""  #: empty: the usual one
    top: str = ""  #: empty: what follows from the start folder


def write_configuration(tree: WorkingTree, *, force: bool, with_schema: bool) -> list[str]:
    """Write the file, and the schema beside it; sentences about what was done.

    Raises UsageError when there is a configuration and it is not to be replaced.
    """
    file, done = tree.path / OWN_FILE, []
    if with_schema:
        _write(tree.path / SCHEMA_FILE, SCHEMA.read_text("utf-8"))
        done.append(f"{tree.path / SCHEMA_FILE} is what editors check {OWN_FILE} by.")
    if not force and (file.exists() or file.is_symlink()):
        if with_schema:
            return [*done, f"Let the first line of {OWN_FILE} be: #:schema ./{SCHEMA_FILE}"]
        raise UsageError(f"{file} exists; --force replaces it")
    if not force and _has_table(tree.path):
        raise UsageError(f"{tree.path / PYPROJECT} has [tool.ciapp]; --force writes {OWN_FILE}, which wins")
    _write(file, propose_configuration(tree, with_schema=with_schema))
    try:
        load_project(tree.path, {}, Limits())
    except ProjectError as error:
        return [*done, f"{file} is written, but cannot be used yet: {error}"]
    return [*done, f"{file} is written; `ciapp run` tries it."]


def propose_configuration(tree: WorkingTree, *, with_schema: bool = False) -> str:
    """A configuration for the tree as it is."""
    names = [name for name, _ in tree.files()]
    layout = find_layout(names)
    minors = supported_minors(said) if (said := _requires_python(tree.path)) else []
    pythons = _list(f"3.{minor}" for minor in minors or (NEWEST_MINOR - 1, NEWEST_MINOR))
    explanation, is_installed = _explain_installation(tree.path)
    has_sources = not is_installed and any(re.match(r"src/.*\.py$", name) for name in names)
    lines = [f"#:schema ./{SCHEMA_FILE}"] if with_schema else []
    lines += [
        "# How ciapp tests this project. Every key is optional; comments show what else may be said.",
        "",
        "# One run under each of these; without it, one under the worker's own Python.",
        f"# python = {pythons}",
        "",
        f'# What the tests need. "auto" makes of this project: {explanation}.',
        "# A list gives arguments of `uv pip install`; false switches it off.",
        'install = "auto"',
        "",
        "# Whether a pass of the same files, tested before, may stand in for a run.",
        "# reuse = false",
        "",
        "[unittest]",
        "# The folder that discovery starts in; without it: tests, else test, else the root.",
        _setting("start", layout.start, "tests"),
        "# What the names of test files are like.",
        _setting("pattern", layout.pattern, PATTERNS[0]),
        "# The folder that modules are imported from.",
        _setting("top", layout.top, "."),
        "",
        "# Environment variables of the tests; {checkout} stands for the checkout's folder.",
        "[env]" if has_sources else "# [env]",
        _setting("PYTHONPATH", "{checkout}/src" if has_sources else "", "{checkout}/src"),
        "",
        "# Below what the server's settings allow: seconds of one test and of all, MiB of memory.",
        "# [limits]",
        "# test_s = 60",
        "# run_s = 1800",
        "# memory_mib = 4096",
    ]
    return "\n".join(lines) + "\n"


def find_layout(names: Sequence[str]) -> Layout:
    """Where the tests are among these files, and how they are called."""
    for pattern in PATTERNS:
        folders = [
            PurePosixPath(name).parent.as_posix()
            for name in names
            if fnmatch(name.rpartition("/")[2], pattern)
        ]
        if folders:
            break
    else:
        return Layout()
    said = "" if pattern == PATTERNS[0] else pattern
    usual = next((one for one in START_FOLDERS if any(name.startswith(f"{one}/") for name in names)), ".")
    if usual != "." and any(_is_below(folder, usual) for folder in folders):
        return Layout(pattern=said)
    start = os.path.commonpath(folders) or "."
    packages = {name.rpartition("/")[0] for name in names if name.endswith("/__init__.py")}
    top = start
    while top in packages:
        top = top.rpartition("/")[0] or "."
    follows = "." if start in packages else start
    return Layout(start="" if start == usual else start, pattern=said, top="" if top == follows else top)


def supported_minors(requires_python: str) -> list[int]:
    """The versions 3.N that a `requires-python` allows, of those that tests run under; empty: not clear."""
    found = set(range(OLDEST_MINOR, NEWEST_MINOR + 1))
    for clause in filter(None, requires_python.split(",")):
        if BEFORE_4.fullmatch(clause):
            continue
        told = CLAUSE.fullmatch(clause)
        if not told:
            return []
        if told["minor"] is None:
            continue  # ">=3" says nothing about minor versions
        sign = told["sign"]
        if sign == "<" and told["rest"].strip(".0*"):
            sign = "<="  # "<3.12.5" leaves some of 3.12
        if sign == "!=" and told["rest"] != ".*":
            continue  # one release of a version that has others
        if sign == "~=" and not told["rest"]:
            sign = ">="
        elif sign == "~=":
            sign = "=="
        found = {minor for minor in found if SIGNS[sign](minor, int(told["minor"]))}
    return sorted(found)


def _explain_installation(folder: Path) -> tuple[str, bool]:
    """What is installed by itself, and whether the project is part of it."""
    try:
        decided = decide_installation(folder, "auto")
    except ProjectError as error:
        return " ".join(f"what fails: {error}".split()), False
    return decided.explanation, bool(decided.requirements and decided.requirements.projects)


def _requires_python(folder: Path) -> str:
    project = _pyproject(folder).get("project")
    said = project.get("requires-python", "") if isinstance(project, dict) else ""
    return said if isinstance(said, str) else ""


def _has_table(folder: Path) -> bool:
    tool = _pyproject(folder).get("tool")
    return isinstance(tool, dict) and "ciapp" in tool


def _pyproject(folder: Path) -> dict[str, object]:
    try:
        return parse_toml(PYPROJECT, (folder / PYPROJECT).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ProjectError):
        return {}  # whoever needs it says what is wrong with it


def _setting(key: str, value: str, example: str) -> str:
    return f"{key} = {_text(value)}" if value else f"# {key} = {_text(example)}"


def _text(value: str) -> str:
    """A string of TOML, whose basic strings escape as JSON does."""
    return json.dumps(value)


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"


def _is_below(folder: str, above: str) -> bool:
    return folder == above or folder.startswith(f"{above}/")


def _write(file: Path, text: str) -> None:
    try:
        if file.is_symlink():
            file.unlink()
        file.write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}; see its permissions") from error
