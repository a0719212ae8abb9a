"""From a commit's files to an environment that its tests can run in.

In:  a checkout, the project's setting `install`, and an interpreter.
Out: an `Environment`, held for as long as the tests run.

The hard idea: a commit that changes code alone must not make a new environment. So a project is installed
editable, from a wheel that its build makes on a skeleton of the checkout (`sources`); the key of the
environment covers all that this build can see. Where that is not enough (a C extension, a version read from
somewhere unusual), the key is that of the skeleton and the tree, and the build sees everything; that a
skeleton is not enough is noted under its key, so that it is tried once.

    decide → key → (there already) or: build requirements → wheels of projects → uv → check → in place
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from ciapp.errors import ProjectError
from ciapp.settings import Settings
from ciapp.testing.building import Builder, BuildOrder, Built, NeedsRequirements, NeedsTree, View, keep_made
from ciapp.testing.checkout import Checkout
from ciapp.testing.environment import Interpreter
from ciapp.testing.environments import MADE, About, Environments, Held
from ciapp.testing.failures import NeedsSource, cannot_be_installed, last_line
from ciapp.testing.install import InstallSetting, decide_installation
from ciapp.testing.keys import Keys
from ciapp.testing.launch import Shown
from ciapp.testing.program import run_program
from ciapp.testing.requirements import LocalProject, Requirements, read_file
from ciapp.testing.sandbox import CHECKOUT, find_level, open_sandbox
from ciapp.testing.slot import Slot
from ciapp.testing.uv import VENV, Uv
from ciapp.testing.wheels import requirement, write_stub

OVERLAY = "overlay"
CHECKED_WITHIN_S = 60.0
MOST_ROUNDS = 3  #: of a backend that asks for further requirements


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What tests run with."""

    python: Path  #: as programs in the sandbox find it
    readable: tuple[Path, ...]  #: what the sandbox must show for it
    variables: dict[str, str]
    explanation: str  #: what is installed and why: a sentence for the report


@contextlib.contextmanager
def prepare_environment(
    slot: Slot,
    checkout: Checkout,
    install: InstallSetting,
    settings: Settings,
    *,
    tree: str,
    interpreter: Interpreter,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Environment]:
    """The environment of a checkout, nobody's to remove inside the `with`.

    `tree` names the checkout's whole content. Raises ProjectError when the commit's own requirements cannot
    be met, InstallError when the registry or this host is to blame, StaleAttemptError once `should_stop`
    says yes.
    """
    decided = decide_installation(checkout.path, install)
    if decided.requirements is None:
        yield Environment(
            python=interpreter.python,
            readable=interpreter.readable,
            variables={},
            explanation=decided.explanation,
        )
        return
    preparation = _Preparation(slot, checkout, settings, tree, interpreter, should_stop)
    held = preparation.obtain(decided.requirements)
    try:
        preparation.lay_over(held)
        venv = held.path / VENV
        yield Environment(
            python=venv / "bin" / "python",
            readable=(held.path, *interpreter.readable),
            variables={
                "PATH": f"{venv / 'bin'}:/usr/local/bin:/usr/bin:/bin",
                "VIRTUAL_ENV": str(venv),
            },
            explanation="; ".join(filter(None, (decided.explanation, held.about.note))),
        )
    finally:
        held.release()


class _Preparation:
    """One call of `prepare_environment`."""

    def __init__(
        self,
        slot: Slot,
        checkout: Checkout,
        settings: Settings,
        tree: str,
        interpreter: Interpreter,
        should_stop: Callable[[], bool],
    ) -> None:
        self._slot = slot
        self._checkout = checkout
        self._settings = settings
        self._tree = tree
        self._interpreter = interpreter
        self._should_stop = should_stop
        self._environments = Environments(settings.state_path, limit_mib=settings.install.cache_mib)
        self._uv = Uv(slot, settings, self._environments, should_stop)
        self._builder = Builder(slot, settings, should_stop)
        is_shown = find_level(settings.sandbox).name == "bubblewrap"
        self._checkout_inside = CHECKOUT if is_shown else checkout.path
        self._keys = Keys(checkout.path, self._checkout_inside, interpreter, settings.install)

    def obtain(self, wanted: Requirements) -> Held:
        """The environment for what is wanted, of the skeleton if that is enough, else of the tree."""
        key = self._keys.key(wanted)
        reason = self._environments.note(key) or self._why_by_tree(wanted)
        if not reason:
            try:
                return self._obtain(key, lambda folder: self._make(folder, wanted, is_full=False))
            except NeedsTree as needs:
                reason = str(needs)
                self._environments.leave_note(key, reason)
        note = f"made anew for each tree, because {reason}"
        return self._obtain(
            self._keys.key(wanted, tree=self._tree),
            lambda folder: self._make(folder, wanted, is_full=True, note=note),
        )

    def lay_over(self, held: Held) -> None:
        """Put what builds made among the sources into the checkout, under the identity of its tests."""
        overlay = held.path / OVERLAY
        if not overlay.is_dir():
            return
        settings = self._settings
        sandbox = open_sandbox(self._slot, self._checkout, settings.limits, setting=settings.sandbox)
        ended = run_program(
            sandbox,
            ["cp", "-r", "-T", "--remove-destination", str(overlay), str(sandbox.checkout)],
            environment={},
            readable=(overlay,),
            timeout_s=settings.install.timeout_s,
            should_stop=self._should_stop,
        )
        if not ended.is_good:
            raise ProjectError(f"built files cannot be laid into the checkout: {last_line(ended)}")

    def _obtain(self, key: str, make: Callable[[Path], About]) -> Held:
        return self._environments.obtain(key, make, should_stop=self._should_stop)

    def _why_by_tree(self, wanted: Requirements) -> str:
        """Why no skeleton can do; empty when one may."""
        for project in wanted.projects:
            if not project.is_editable:
                return f"{project.path!r} is not installed editable"
        if wanted.projects and not self._builder.can_close_files:
            return "the sandbox runs as root, from whom no file can be kept"
        return ""

    def _make(self, folder: Path, wanted: Requirements, *, is_full: bool, note: str = "") -> About:
        """An environment with the projects that are wanted, from one with all that they require."""
        if not wanted.projects:
            return self._make_base(wanted, [], folder)
        wheels = folder / "wheels"
        wheels.mkdir()
        wheels.chmod(0o755)
        builds = [
            self._build(wheels / str(number), project, is_full)
            for number, project in enumerate(wanted.projects)
        ]
        base = self._obtain(self._keys.base_key(wanted, builds), partial(self._make_base, wanted, builds))
        try:
            files = [built.wheel.file for built in builds]
            python, readable = self._interpreter.python, self._interpreter.readable
            self._uv.extend_environment(folder, python, readable, base.path / VENV, files)
        finally:
            base.release()
        for built in builds:
            if built.is_editable:
                keep_made(built, folder / MADE / OVERLAY)
                self._point_at_checkout(folder / MADE / VENV, built.sources)
        self._check(folder / MADE)
        return About(note="; ".join(filter(None, (note, base.about.note))))

    def _make_base(self, wanted: Requirements, builds: Sequence[Built], folder: Path) -> About:
        """An environment with all that is wanted but the projects, for which stubs stand in."""
        wheels = folder / "wheels"
        wheels.mkdir()
        wheels.chmod(0o755)
        lines = [self._copy_wheel(name, wheels) for name in wanted.wheels]
        for project, built in zip(wanted.projects, builds, strict=False):
            lines.append(requirement(project, built.wheel, write_stub(built.wheel, wheels).as_uri()))
        told = self._install(
            folder,
            msgspec.structs.replace(
                wanted,
                lines=(*lines, *wanted.lines),
                constraints=(*wanted.constraints, *self._pinned(folder, wanted)),
            ),
        )
        self._check(folder / MADE)
        return About(note=told)

    def _pinned(self, folder: Path, wanted: Requirements) -> tuple[str, ...]:
        if wanted.lock is None:
            return ()
        python, readable = self._interpreter.python, self._interpreter.readable
        return self._uv.read_lock(folder, python, readable, self._checkout.path, wanted.lock)

    def _install(self, folder: Path, wanted: Requirements) -> str:
        python, readable = self._interpreter.python, self._interpreter.readable
        try:
            return self._uv.make_environment(folder, python, readable, wanted)
        except NeedsSource as needs:
            if not self._settings.install.network:
                raise ProjectError(
                    f"{needs}; building it needs the network, which [install] network in the server's"
                    " settings does not grant",
                    output=needs.ended.output,
                ) from needs
            self._builder.install_from_source(folder, python, readable, wanted)
            return f"built from source, because {needs}"

    def _build(self, folder: Path, project: LocalProject, is_full: bool) -> Built:
        build = self._keys.build_of(project)
        asked: tuple[str, ...] = ()
        folder.mkdir()
        folder.chmod(0o755)
        for number in range(MOST_ROUNDS):
            wanted = Requirements(lines=(*build.requires, *asked))
            tools = self._obtain(self._keys.key(wanted), partial(self._make_base, wanted, []))
            try:
                venv = tools.path / VENV
                return self._builder.build_project(
                    folder / str(number),
                    BuildOrder(
                        project=project,
                        build=build,
                        checkout=self._checkout.path,
                        python=venv / "bin" / "python",
                        readable=(tools.path, *self._interpreter.readable),
                        version=self._keys.version(),
                        is_full=is_full,
                    ),
                )
            except NeedsRequirements as needs:
                asked = (*asked, *needs.requirements)
            finally:
                tools.release()
        raise ProjectError(f"its build backend always asks for more: {', '.join(asked)}")

    def _copy_wheel(self, name: str, folder: Path) -> str:
        copy = folder / Path(name).name
        copy.write_bytes(read_file(self._checkout.path, name, "install"))
        copy.chmod(0o644)
        return copy.as_uri()

    def _point_at_checkout(self, venv: Path, sources: Path) -> None:
        """Make an editable installation that was built elsewhere find the checkout.

        Where the sandbox shows folders at other places, both stand at the same one, and nothing is to do.
        """
        if self._checkout_inside == CHECKOUT:
            return
        was, now = os.fsencode(sources), os.fsencode(self._checkout_inside)
        for file in venv.glob("lib/python*/site-packages/*.p*"):
            if file.suffix not in (".pth", ".py"):
                continue
            content = file.read_bytes()
            if was in content:
                file.unlink()  # it may share its content with the downloads
                file.write_bytes(content.replace(was, now))

    def _check(self, made: Path) -> None:
        """Raise when the environment's interpreter does not start."""
        settings = self._settings
        empty = made.parent / "empty"
        empty.mkdir()
        view = View((Shown(empty, CHECKOUT, writable=True),))
        sandbox = open_sandbox(self._slot, view, settings.limits, setting=settings.sandbox)
        python = str(made / VENV / "bin" / "python")
        ended = run_program(
            sandbox,
            [python, "-c", "import sys; sys.exit(sys.prefix == sys.base_prefix)"],
            environment={},
            readable=(made, *self._interpreter.readable),
            timeout_s=CHECKED_WITHIN_S,
            should_stop=self._should_stop,
        )
        if not ended.is_good:
            raise cannot_be_installed(ended)
