"""What to install for a commit's tests, and why: a decision from its files alone.

In:  the checkout, and the project's setting `install`.
Out: `Installation`: requirements, and a sentence for the report.

With "auto" the first of these that the commit has decides:

1. `pyproject.toml` with [project] or [build-system]: the project itself, editable, with the first of extra
   `test`, extra `tests`, group `test`, group `tests` that it declares. With [project] alone, or when its own
   tool says that it is no package, its dependencies without the project. What they require of the commit's
   other folders, by `tool.uv.sources`, comes from there; all else at the versions of `uv.lock`, where it is.
2. `setup.py`, or `setup.cfg` with [metadata] or [options]: the project itself, editable, likewise.
3. requirements files by their usual names, all that are there.
4. nothing.
"""

from __future__ import annotations

import configparser
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ciapp.testing.metadata import PYPROJECT, PyProject, read_dependencies, read_pyproject
from ciapp.testing.requirements import LocalProject, Lock, Requirements, read_arguments, read_file
from ciapp.testing.workspace import Followed, follow_sources

InstallSetting = bool | Literal["auto"] | list[str]

TEST_NAMES = ("test", "tests")
IF_DECLARED = " and its extra 'test' or 'tests', if it has one"
UV_LOCK = "uv.lock"
#: Of other tools, which are not read.
LOCK_FILES = ("poetry.lock", "pdm.lock", "pylock.toml", "Pipfile.lock")
REQUIREMENTS_FILES = (
    "requirements.txt",
    "requirements-test.txt",
    "requirements-tests.txt",
    "requirements_test.txt",
    "test-requirements.txt",
    "test_requirements.txt",
    "requirements/test.txt",
    "requirements/tests.txt",
    "tests/requirements.txt",
    "test/requirements.txt",
)


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """What is installed for a commit."""

    requirements: Requirements | None  #: None: nothing, the tests run under a bare interpreter
    explanation: str  #: one sentence: what, and why


def decide_installation(checkout: Path, install: InstallSetting) -> Installation:
    """The decision. Raises ProjectError for files that cannot be used."""
    if install is False:
        return Installation(requirements=None, explanation="nothing is installed: install = false")
    if isinstance(install, list):
        if not install:
            return Installation(requirements=None, explanation="nothing is installed: install = []")
        return Installation(
            requirements=read_arguments(checkout, install),
            explanation=f"installed: {' '.join(install)}, as install says",
        )
    found = _from_pyproject(checkout) or _from_setup(checkout) or _from_requirements(checkout)
    if found.requirements is None:
        return found
    locks = LOCK_FILES if found.requirements.lock else (UV_LOCK, *LOCK_FILES)
    told = "; ".join((found.explanation, *_unread(checkout, locks)))
    return msgspec.structs.replace(found, explanation=told)


def _unread(checkout: Path, names: Sequence[str]) -> Iterator[str]:
    """Of these locks, those that a commit has and that are not taken into account."""
    locks = [name for name in names if (checkout / name).is_file()]
    if locks:
        yield f"{', '.join(locks)} {'are' if len(locks) > 1 else 'is'} not read, so versions may be others"


def _from_pyproject(checkout: Path) -> Installation | None:
    if not (checkout / PYPROJECT).is_file():
        return None
    text = read_file(checkout, PYPROJECT, PYPROJECT)
    declared = read_pyproject(PYPROJECT, text)
    if not declared.has_project and not declared.has_build:
        return None
    extra = next((name for name in TEST_NAMES if name in declared.extras), None)
    group = next((name for name in TEST_NAMES if name in declared.groups), None) if not extra else None
    is_told = declared.has_project and "optional-dependencies" not in declared.dynamic
    added = f" and its extra {extra!r}" if extra else f" and its group {group!r}" if group else ""
    if not is_told and not added:
        added = IF_DECLARED
    groups, extras = [group] if group else [], [extra] if extra else []
    lines = read_dependencies(PYPROJECT, text, extras=extras, groups=groups)
    followed = follow_sources(checkout, lines)
    lock = _lock(checkout, text, extras, groups, is_told) if declared.has_project else None
    told = "".join(f"; {sentence}" for sentence in _followed(followed, lock))
    if _is_package(declared):
        own = LocalProject(path=".", extras=tuple(extras), first_of=() if is_told else TEST_NAMES)
        requirements = Requirements(
            lines=tuple(read_dependencies(PYPROJECT, text, extras=None, groups=groups)),
            projects=(own, *followed.projects),
            lock=lock,
            files=(PYPROJECT,),
        )
        return Installation(
            requirements=requirements,
            explanation=f"installed: the project{added}, as {PYPROJECT} has it{told}",
        )
    why = "it is no package" if not declared.is_package else "it has no [build-system]"
    sentence = f"the project's dependencies{added} without the project, for by {PYPROJECT} {why}"
    if not lines:
        return Installation(requirements=None, explanation=f"nothing is installed: {PYPROJECT} asks for none")
    return Installation(
        requirements=Requirements(
            lines=tuple(lines), projects=followed.projects, lock=lock, files=(PYPROJECT,)
        ),
        explanation=f"installed: {sentence}{told}",
    )


def _lock(
    checkout: Path, pyproject: bytes, extras: Sequence[str], groups: Sequence[str], is_told: bool
) -> Lock | None:
    if not (checkout / UV_LOCK).is_file():
        return None
    digest = hashlib.sha256(pyproject + b"\0" + read_file(checkout, UV_LOCK, UV_LOCK)).hexdigest()
    words = [f"--extra={extra}" for extra in extras] + [f"--group={group}" for group in groups]
    return Lock(digest=digest, words=tuple(words) if is_told else ("--all-extras", *words))


def _followed(followed: Followed, lock: Lock | None) -> Iterator[str]:
    """What is to be told of sources and of the lock."""
    if followed.projects:
        yield f"of this commit: {', '.join(project.path for project in followed.projects)}"
    if lock is not None:
        yield f"versions as {UV_LOCK} has them"
    # What it has from git or a URL, a lock says as well.
    left = [name for name, kind in followed.left if lock is None or kind not in ("git", "url")]
    if left:
        yield f"from the index, whatever tool.uv.sources in {PYPROJECT} says: {', '.join(left)}"


def _is_package(declared: PyProject) -> bool:
    return declared.is_package and declared.has_build


def _from_setup(checkout: Path) -> Installation | None:
    if (checkout / "setup.py").is_file():
        source = "setup.py"
    elif _is_declarative(checkout):
        source = "setup.cfg"
    else:
        return None
    return Installation(
        requirements=Requirements(projects=(LocalProject(path=".", first_of=TEST_NAMES),), files=(source,)),
        explanation=f"installed: the project{IF_DECLARED}, as {source} has it",
    )


def _from_requirements(checkout: Path) -> Installation:
    names = [name for name in REQUIREMENTS_FILES if (checkout / name).is_file()]
    if not names:
        return Installation(
            requirements=None, explanation="nothing is installed: the commit declares no dependencies"
        )
    requirements = read_arguments(checkout, [word for name in names for word in ("-r", name)])
    return Installation(requirements=requirements, explanation=f"installed: {', '.join(names)}")


def _is_declarative(checkout: Path) -> bool:
    """Whether setup.cfg describes a package, and not just how some tools are to behave."""
    if not (checkout / "setup.cfg").is_file():
        return False
    sections = configparser.RawConfigParser(strict=False)
    try:
        sections.read_string(read_file(checkout, "setup.cfg", "setup.cfg").decode("utf-8", "replace"))
    except configparser.Error:
        return False
    return "metadata" in sections or "options" in sections
