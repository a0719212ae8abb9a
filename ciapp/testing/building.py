"""Wheels built from source: the one part of an installation that runs code of commits and packages.

In:  a project of the checkout, or requirements that have no wheels; an environment with build requirements.
Out: a wheel, and the files that its build made among the sources; or a whole environment.

Builds run in the sandbox that tests run in, under the slot's identity: no sight of the index's credentials or
of the downloads, and no network but what `[install] network` grants. Whatever they leave is taken for what
it is, a claim by untrusted code: names are checked, links not followed, sizes bounded by the sandbox.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ciapp.errors import InstallError, ProjectError
from ciapp.settings import Settings
from ciapp.testing.environments import MADE
from ciapp.testing.failures import cannot_be_installed, last_line
from ciapp.testing.folders import remove_folder
from ciapp.testing.launch import Shown
from ciapp.testing.metadata import Build
from ciapp.testing.program import Ended, run_program
from ciapp.testing.registry import HOSTS_FILES, certificates, registry_variables, without_credentials
from ciapp.testing.requirements import LocalProject, Requirements
from ciapp.testing.sandbox import CHECKOUT, find_level, identity_in, open_sandbox
from ciapp.testing.slot import Slot
from ciapp.testing.sources import copy_sources, list_made
from ciapp.testing.uv import VENV, compile_command, uv_command, uv_program, write_requirements
from ciapp.testing.wheels import Wheel, copy_claimed, take_wheel

FRONTEND = Path(__file__).with_name("frontend.py")
RESULT = "result.json"
OUT = "out"
LARGEST_RESULT = 1 << 16
#: Backends whose editable installs build again at each import, with tools that only a build has.
NEVER_EDITABLE = ("mesonpy",)
#: Tools that ask git for the version, which a build cannot see, and the variables that answer for it.
VERSION_VARIABLES = (
    "SETUPTOOLS_SCM_PRETEND_VERSION",
    "PDM_BUILD_SCM_VERSION",
    "PBR_VERSION",
    "POETRY_DYNAMIC_VERSIONING_BYPASS",
)


class View(msgspec.Struct, frozen=True):
    """What a build sees."""

    shown: tuple[Shown, ...]


class BuildOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to build, and with what."""

    project: LocalProject
    build: Build
    checkout: Path
    python: Path  #: of the environment with the build requirements
    readable: tuple[Path, ...]
    version: str  #: for projects that take theirs from git
    is_full: bool  #: whether the build sees all of the project


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What a build left behind."""

    wheel: Wheel
    is_editable: bool
    sources: Path  #: the folder that stood for the checkout, with what the build made in it
    made: tuple[str, ...]  #: files that the build made or wrote to there, and that belong into a checkout


class NeedsRequirements(Exception):  # noqa: N818 - it is no error
    """The backend asks for more than its environment holds."""

    def __init__(self, requirements: tuple[str, ...]) -> None:
        super().__init__(", ".join(requirements))
        self.requirements = requirements


class NeedsTree(Exception):  # noqa: N818 - it is no error
    """The build depends on more of the project than a skeleton shows."""


class Builder:
    """Builds in a slot's sandbox."""

    def __init__(self, slot: Slot, settings: Settings, should_stop: Callable[[], bool]) -> None:
        self._slot = slot
        self._settings = settings
        self._should_stop = should_stop
        self._identity = identity_in(find_level(settings.sandbox), slot)

    @property
    def can_close_files(self) -> bool:
        """Whether a build can be kept from reading what it is not to read: nothing is closed to root."""
        return self._identity.uid != 0

    def build_project(self, folder: Path, order: BuildOrder) -> Built:
        """A wheel of a project, in a folder that does not exist yet.

        Raises NeedsRequirements before anything is built, NeedsTree when a skeleton was not enough, and
        ProjectError for a project that cannot be built.
        """
        sources, out = folder / "checkout", folder / OUT
        place = "" if order.is_full else order.project.path
        folder.mkdir()
        self._copy(order, sources, place)
        out.mkdir()
        folder.chmod(0o755)
        self._give_away(folder)
        ended = self._run_frontend(order, sources, out)
        result = _read_result(out) if ended.is_good else None
        if result is None or not (result.get("wheel") or result.get("requires")):
            if not order.is_full:
                raise NeedsTree(f"its build needs more of the project: {last_line(ended)}")
            raise ProjectError(f"the project cannot be built: {last_line(ended)}", output=ended.output)
        if requires := result.get("requires"):
            raise NeedsRequirements(tuple(map(str, requires)))
        is_editable = result.get("editable") is True
        made, changed = list_made(sources, order.checkout)
        if not order.is_full and (changed or not is_editable):
            what = f"it writes to {changed[0]}" if changed else "its build knows no editable installation"
            raise NeedsTree(what)
        return Built(
            wheel=take_wheel(out / Path(str(result["wheel"])).name, folder),
            is_editable=is_editable,
            sources=sources,
            made=(*made, *changed) if is_editable else (),
        )

    def install_from_source(
        self, folder: Path, python: Path, readable: Sequence[Path], wanted: Requirements
    ) -> None:
        """The whole environment, in the folder's `made/venv`, with what has no wheels built on the way.

        Only where the server's settings grant builds the network: without it, nothing can be fetched.
        """
        work, made = folder / "work", folder / MADE
        remove_folder(made / VENV)
        work.mkdir()
        for own in (work, made):
            self._give_away(own)
        view = View((Shown(work, CHECKOUT, writable=True), Shown(made, made, writable=True)))
        files = write_requirements(folder, wanted)
        variables = without_credentials(registry_variables(self._settings.install, os.environ))
        variables |= certificates(folder) | {"UV_NO_CACHE": "1", "UV_LINK_MODE": "copy"}
        venv = made / VENV
        create = ["venv", "--quiet", "--relocatable", "--python", str(python), str(venv)]
        install = ["pip", "install", "--python", str(venv / "bin" / "python"), *files, *wanted.options]
        inputs = [file for pattern in ("*.txt", "*.pem", "wheels") for file in folder.glob(pattern)]
        needed = (uv_program(), *HOSTS_FILES, *inputs, *readable)
        for words in (create, install):
            ended = self._run(view, uv_command(words), variables, needed, network=True)
            if not ended.is_good:
                raise cannot_be_installed(ended)
        self._run(view, compile_command(python, venv), {}, readable, network=False)
        self._take_back(made)

    def _copy(self, order: BuildOrder, sources: Path, place: str) -> None:
        target = sources
        for part in Path(place).parts:
            target.mkdir(exist_ok=True)
            target = target / part
        try:
            copy_sources(order.checkout / place, target, order.build, full=order.is_full)
        except OSError as error:
            raise InstallError(
                f"{sources} cannot be written: {error.strerror}; check the disk of state_dir"
            ) from error

    def _give_away(self, folder: Path) -> None:
        """Let the slot's identity have a folder and all in it."""
        if not self._identity.is_own:
            return
        for parent, folders, files in os.walk(folder):
            for name in (".", *folders, *files):
                os.chown(Path(parent, name), self._identity.uid, self._identity.gid, follow_symlinks=False)

    def _take_back(self, folder: Path) -> None:
        """Let nobody have a folder whom tests could be."""
        if self._identity.is_own:
            for parent, folders, files in os.walk(folder):
                for name in (".", *folders, *files):
                    os.chown(Path(parent, name), 0, 0, follow_symlinks=False)

    def _run_frontend(self, order: BuildOrder, sources: Path, out: Path) -> Ended:
        view = View((Shown(sources, CHECKOUT, writable=True), Shown(out, out, writable=True)))
        wishes = {
            "backend": order.build.backend,
            "backend_path": order.build.backend_path,
            "folder": order.project.path,
            "out": str(out),
            "editable": order.project.is_editable and order.build.backend not in NEVER_EDITABLE,
        }
        variables = dict.fromkeys(VERSION_VARIABLES, order.version)
        variables |= {"PATH": f"{order.python.parent}:/usr/local/bin:/usr/bin:/bin"}
        command = [str(order.python), str(FRONTEND), json.dumps(wishes)]
        network = self._settings.install.network
        return self._run(view, command, variables, (FRONTEND, *order.readable), network=network)

    def _run(
        self,
        view: View,
        command: Sequence[str],
        variables: Mapping[str, str],
        readable: Sequence[Path],
        *,
        network: bool,
    ) -> Ended:
        settings = self._settings
        sandbox = open_sandbox(self._slot, view, settings.limits, setting=settings.sandbox, network=network)
        return run_program(
            sandbox,
            command,
            environment=variables,
            readable=readable,
            timeout_s=settings.install.timeout_s,
            should_stop=self._should_stop,
        )


def keep_made(built: Built, folder: Path) -> None:
    """Copy to a folder what the build made among the sources, at the same places."""
    for name in built.made:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_claimed(built.sources / name, target)
        target.chmod(0o755)


def _read_result(out: Path) -> dict[str, Any] | None:
    """What the frontend says of the build; None when it says nothing that makes sense."""
    try:
        descriptor = os.open(out / RESULT, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            result = json.loads(file.read(LARGEST_RESULT))
    except (OSError, ValueError, RecursionError):
        return None
    return result if isinstance(result, dict) else None
