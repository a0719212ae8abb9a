"""The door to uv: environments assembled from wheels, where no code but uv's own runs.

In:  requirements, and a folder to make the environment in.
Out: an environment; a ProjectError when the commit asks for what cannot be had, an InstallError when the
     registry or this host is to blame.

Wheels are data: installing one runs nothing of it. So uv may be trusted with the index's credentials, with
the network, and with the downloads that all environments of this host share. Whatever has to be built from
source runs elsewhere, without any of the three (`ciapp.testing.building`). uv runs in a sandbox all the same,
under an identity of its own: so tests cannot write to what it made.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import msgspec

from ciapp.errors import InstallError, ProjectError, StaleAttemptError
from ciapp.settings import Settings
from ciapp.testing.bubblewrap import HOME, Bubblewrap
from ciapp.testing.environments import MADE, Environments
from ciapp.testing.etc import lay_out_etc
from ciapp.testing.failures import Blame, NeedsSource, cannot_be_installed, find_blame, last_line
from ciapp.testing.launch import Shown
from ciapp.testing.limits import LimitsOnly
from ciapp.testing.metadata import PYPROJECT
from ciapp.testing.program import Ended, run_program
from ciapp.testing.registry import HOSTS_FILES, certificates, registry_variables, split_credentials
from ciapp.testing.requirements import LINE_END, Lock, Requirements, logical_lines, read_file
from ciapp.testing.sandbox import Sandbox, find_level, identity_in
from ciapp.testing.slot import FIRST_UID, Identity, Slot

INSTALL_UID = FIRST_UID - 2  #: uv's identity under root; no slot has it
RETRY_AFTER_S = (2.0, 10.0)  #: between tries, each of which tries several times itself
VENV = "venv"
LOCKED = "locked"  #: where uv looks at a lock


class Uv:
    """uv, for the environments of one slot."""

    def __init__(
        self, slot: Slot, settings: Settings, environments: Environments, should_stop: Callable[[], bool]
    ) -> None:
        self._slot = slot
        self._settings = settings
        self._environments = environments
        self._should_stop = should_stop
        self._level = find_level(settings.sandbox)

    def make_environment(
        self, folder: Path, python: Path, readable: Sequence[Path], wanted: Requirements
    ) -> str:
        """An environment in the folder's `made/venv`; what there is to tell of it, empty for nothing.

        Raises NeedsSource when something has no wheel, else as the module's docstring says.
        """
        venv = folder / MADE / VENV
        files = write_requirements(folder, wanted)
        self._open_to_uv(folder / MADE)
        install = ["pip", "install", "--no-build", "--python", str(venv / "bin" / "python"), *files]
        note = ""
        with self._environments.using_downloads():
            sandbox = self._sandbox(folder)
            self._must(self._run(sandbox, folder, self._create(python, venv), readable))
            if wanted.lines or wanted.options:
                note = self._install(sandbox, folder, [*install, *wanted.options], readable, wanted)
            self._compile(sandbox, folder, python, readable)
        return note

    def read_lock(
        self, folder: Path, python: Path, readable: Sequence[Path], checkout: Path, lock: Lock
    ) -> tuple[str, ...]:
        """What a checkout's uv.lock pins, as constraints with the hashes of its files. Runs offline."""
        place, out = folder / LOCKED, folder / LOCKED / "constraints.txt"
        self._open_to_uv(place)
        for name in (PYPROJECT, "uv.lock"):
            (place / name).write_bytes(read_file(checkout, name, name))
            (place / name).chmod(0o644)
        words = ["export", "--quiet", "--frozen", "--offline", "--no-default-groups", "--no-emit-local"]
        words += ["--no-header", "--no-annotate", "--format", "requirements.txt", "--output-file", str(out)]
        words += ["--python", str(python), "--directory", str(place), *lock.words]
        with self._environments.using_downloads():
            ended = self._run(self._sandbox(place), place, words, readable)
        if not ended.is_good:
            raise ProjectError(f"uv.lock cannot be used: {last_line(ended)}", output=ended.output)
        return tuple(line for _, line in logical_lines(out.read_text("utf-8")))

    def extend_environment(
        self, folder: Path, python: Path, readable: Sequence[Path], base: Path, wheels: Sequence[Path]
    ) -> None:
        """An environment in the folder's `made/venv` that holds these wheels, and what another one holds.

        The wheels come first: uv starts the environment's interpreter, which must find nothing to run yet.
        """
        venv = folder / MADE / VENV
        install = ["pip", "install", "--no-build", "--no-deps", "--no-index", "--offline", "--python"]
        self._open_to_uv(folder / MADE)
        with self._environments.using_downloads():
            sandbox = self._sandbox(folder)
            self._must(self._run(sandbox, folder, self._create(python, venv), readable))
            words = [*install, str(venv / "bin" / "python"), *map(str, wheels)]
            ended = self._run(sandbox, folder, words, readable)
            if not ended.is_good:
                raise cannot_be_installed(ended)
            add_by_links(base, venv, self._identity)
            self._compile(sandbox, folder, python, readable)

    def _create(self, python: Path, venv: Path) -> list[str]:
        return ["venv", "--quiet", "--relocatable", "--clear", "--python", str(python), str(venv)]

    def _install(
        self, sandbox: Sandbox, folder: Path, words: list[str], readable: Sequence[Path], wanted: Requirements
    ) -> str:
        for pause_s in (*RETRY_AFTER_S, None):
            ended = self._run(sandbox, folder, words, readable)
            if ended.is_good:
                return ""
            blame = find_blame(ended, (*wanted.lines, *wanted.constraints, *wanted.options))
            if blame is Blame.SOURCE:
                raise NeedsSource(ended)
            if blame is Blame.HOST:
                raise InstallError(f"uv cannot install: {last_line(ended)}; check the disk of state_dir")
            if blame is Blame.COMMIT:
                raise cannot_be_installed(ended)
            # What was downloaded once does for a while, but uv asks whether it is still the newest.
            if self._run(sandbox, folder, [*words, "--offline"], readable).is_good:
                return "from what was downloaded before, for the registry does not answer"
            if pause_s is not None:
                self._pause(pause_s)
        raise InstallError(
            f"the package registry does not answer: {last_line(ended)}; check [install] and the network"
        )

    def _compile(self, sandbox: Sandbox, folder: Path, python: Path, readable: Sequence[Path]) -> None:
        """Byte-code for everything, since tests may not write it; what is no Python is left alone."""
        self._run_words(sandbox, compile_command(python, folder / MADE / VENV), {}, readable)

    def _run(self, sandbox: Sandbox, folder: Path, words: list[str], readable: Sequence[Path]) -> Ended:
        text, variables = split_credentials(registry_variables(self._settings.install, os.environ))
        variables |= {**certificates(folder), "UV_CACHE_DIR": str(self._environments.downloads)}
        config = self._write_config(folder, text)
        try:
            command = uv_command(words, config=config)
            return self._run_words(sandbox, command, variables, (uv_program(), *readable))
        finally:
            config.unlink()

    def _write_config(self, folder: Path, text: str) -> Path:
        """uv's configuration, with what nobody else may know, under a name that no commit can tell uv."""
        file, identity = folder / f"uv-{secrets.token_hex(16)}.toml", self._identity
        file.touch(mode=0o600, exist_ok=False)
        file.write_text(text, "utf-8")
        if identity.is_own:
            os.chown(file, identity.uid, identity.gid)
        return file

    def _run_words(
        self, sandbox: Sandbox, words: list[str], variables: dict[str, str], readable: Sequence[Path]
    ) -> Ended:
        return run_program(
            sandbox,
            # Others are to read what is made, whatever the worker's umask.
            ["sh", "-c", 'umask 022 && exec "$@"', "sh", *words],
            environment=variables,
            readable=(*HOSTS_FILES, *readable),
            timeout_s=self._settings.install.timeout_s,
            should_stop=self._should_stop,
        )

    def _must(self, ended: Ended) -> None:
        if not ended.is_good:
            raise InstallError(f"uv cannot make an environment: {last_line(ended)}; see `ciapp doctor`")

    def _pause(self, pause_s: float) -> None:
        until_s = time.monotonic() + pause_s
        while time.monotonic() < until_s:
            if self._should_stop():
                raise StaleAttemptError("the run was stopped while the package registry did not answer")
            time.sleep(0.1)

    @property
    def _identity(self) -> Identity:
        identity = identity_in(self._level, self._slot)
        return Identity(INSTALL_UID, INSTALL_UID, is_own=True) if identity.is_own else identity

    def _open_to_uv(self, folder: Path) -> None:
        identity = self._identity
        folder.mkdir(exist_ok=True)
        if identity.is_own:
            os.chown(folder, identity.uid, identity.gid)

    def _sandbox(self, folder: Path) -> Sandbox:
        """One mount for the downloads and what is made of them, so that files can be shared by links."""
        self._open_to_uv(self._environments.downloads)
        self._environments.downloads.chmod(0o700)  # packages of a private index are nobody else's
        shown = [Shown(self._environments.workshop, self._environments.workshop, writable=True)]
        # The limit on disk is for what a commit does; this is held by the limit on all environments.
        limits = msgspec.structs.replace(self._settings.limits, disk_mib=1 << 30)
        if self._level.name == Bubblewrap.level:
            etc = folder / "etc"
            lay_out_etc(etc, self._identity, HOME)
            return Bubblewrap(self._identity, etc, limits, shown, checkout=folder, network=True)
        return LimitsOnly(self._identity, folder / "scratch", limits, shown, checkout=folder)


def add_by_links(base: Path, venv: Path, identity: Identity) -> None:
    """Add to an environment what another one holds and it does not, sharing the files."""
    done = subprocess.run(
        ["cp", "-a", "-l", "-n", f"{base}/.", str(venv)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise InstallError(f"{base} cannot be linked to {venv}: {''.join(said)}; check the disk of state_dir")
    if identity.is_own:
        for parent, _, _ in os.walk(venv):
            os.chown(parent, identity.uid, identity.gid)


def write_requirements(folder: Path, wanted: Requirements) -> list[str]:
    """Files for uv in a folder, and the words of the command line that name them."""
    words: list[str] = []
    for option, name, lines in (
        ("--requirements", "requirements.txt", wanted.lines),
        ("--constraints", "constraints.txt", wanted.constraints),
    ):
        for line in lines:
            # What is no requirement would be an option, and might have uv read what is not the commit's.
            if LINE_END.search(line) or line.lstrip().startswith("-"):
                raise ProjectError(f"{line!r} is no requirement of one line; write it as one")
        if lines:
            file = folder / name
            file.write_text("".join(f"{line}\n" for line in lines), "utf-8", "surrogateescape")
            file.chmod(0o644)
            words += [option, str(file)]
    return words


def uv_command(words: Sequence[str], *, config: Path | None = None) -> list[str]:
    """uv with a command, deaf to all configuration but ours and content with the Pythons that are here."""
    fixed = ["--no-python-downloads", "--no-progress", "--color", "never"]
    fixed += ["--config-file", str(config)] if config else ["--no-config"]
    return [str(uv_program()), *words, *fixed]


def compile_command(python: Path, venv: Path) -> list[str]:
    """What compiles an environment's modules, under the bare interpreter.

    That of the environment would run what packages put in its `.pth` files.
    """
    return [str(python), "-I", "-S", "-m", "compileall", "-q", "-q", "-j", "0", str(venv / "lib")]


@cache
def uv_program() -> Path:
    """Where uv is. Raises InstallError when it is not installed."""
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if not found:
        raise InstallError("uv is not installed beside ciapp; install it with `pip install uv`")
    return Path(found).resolve()


@cache
def uv_version() -> str:
    """As uv tells it."""
    try:
        done = subprocess.run([uv_program(), "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallError(f"{uv_program()} cannot be run: {error}; install uv again") from error
    return done.stdout.strip()
