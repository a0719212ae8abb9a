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
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from ciapp.errors import InstallError, ProjectError, StaleAttemptError
from ciapp.settings import InstallSettings, Settings
from ciapp.testing.bubblewrap import HOME, Bubblewrap
from ciapp.testing.environments import MADE, Environments
from ciapp.testing.etc import lay_out_etc
from ciapp.testing.launch import Shown
from ciapp.testing.limits import LimitsOnly
from ciapp.testing.program import Ended, run_program
from ciapp.testing.requirements import Requirements
from ciapp.testing.sandbox import Sandbox, find_level, identity_in
from ciapp.testing.slot import FIRST_UID, Identity, Slot

INSTALL_UID = FIRST_UID - 2  #: uv's identity under root; no slot has it
RETRY_AFTER_S = (2.0, 10.0)  #: between tries, each of which tries several times itself
VENV = "venv"
#: Variables of the worker that say how to reach the registry.
REGISTRY_VARIABLES = (
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "UV_DEFAULT_INDEX",
    "UV_EXCLUDE_NEWER",
    "UV_HTTP_RETRIES",
    "UV_HTTP_TIMEOUT",
    "UV_INDEX",
    "UV_INDEX_STRATEGY",
    "UV_INSECURE_HOST",
    "UV_OFFLINE",
)
SYSTEM_CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
#: Names of hosts that no server of names knows.
HOSTS_FILES = tuple(file for file in (Path("/etc/hosts"),) if file.exists())

UNREACHABLE = re.compile(
    r"error sending request|HTTP status server error|429 Too Many Requests|error decoding response"
    r"|operation timed out|network timeout|connection (closed|reset)|network was disabled"
    r"|lack of valid authentication credentials"
)
OF_THIS_HOST = re.compile(r"No space left on device|Read-only file system|Disk quota|Input/output error")
NEEDS_BUILD = re.compile(r"Wheels are required for|[Bb]uilding (from source|source dist\w*)[^\n]*disabled")
WITHOUT_WHEEL = re.compile(r"Wheels are required for `([^`]+)`")
LONGEST_LINE = 200
CREDENTIALS = re.compile(r"(?:(?<=://)|(?<![^\s=]))[^\s/@=]+@")  #: user and password of a URL
FAILED_URL = re.compile(r"https?://[^\s)'\"]+")


class Blame(Enum):
    """Whose a failure of uv's is."""

    COMMIT = "the commit asks for what cannot be had"
    SOURCE = "something would have to be built from source"
    REGISTRY = "the registry does not answer"
    HOST = "this host cannot do it"


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
        create = ["venv", "--quiet", "--relocatable", "--clear", "--python", str(python), str(venv)]
        install = ["pip", "install", "--no-build", "--python", str(venv / "bin" / "python"), *files]
        note = ""
        with self._environments.using_downloads():
            self._open_to_uv(self._environments.downloads)
            sandbox = self._sandbox(folder)
            self._must(self._run(sandbox, folder, create, readable))
            if wanted.lines or wanted.options:
                note = self._install(sandbox, folder, [*install, *wanted.options], readable, wanted)
            self._compile(sandbox, folder, python, readable)
        return note

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
        variables = {
            **registry_variables(self._settings.install, os.environ),
            **certificates(folder),
            "UV_CACHE_DIR": str(self._environments.downloads),
        }
        return self._run_words(sandbox, uv_command(words), variables, (uv_program(), *readable))

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
        shown = [Shown(self._environments.workshop, self._environments.workshop, writable=True)]
        # The limit on disk is for what a commit does; this is held by the limit on all environments.
        limits = msgspec.structs.replace(self._settings.limits, disk_mib=1 << 30)
        if self._level.name == Bubblewrap.level:
            etc = folder / "etc"
            lay_out_etc(etc, self._identity, HOME)
            return Bubblewrap(self._identity, etc, limits, shown, checkout=folder, network=True)
        return LimitsOnly(self._identity, folder / "scratch", limits, shown, checkout=folder)


class NeedsSource(Exception):  # noqa: N818 - it is no error yet
    """Something that is wanted has no wheel that would do here."""

    def __init__(self, ended: Ended) -> None:
        names = dict.fromkeys(WITHOUT_WHEEL.findall(ended.output))
        super().__init__(f"there is no wheel of {', '.join(names)}" if names else last_line(ended))
        self.ended = ended


def find_blame(ended: Ended, asked_for: Iterable[str]) -> Blame:
    """Whose fault it is that uv failed; `asked_for` is what the commit says, URLs of its own included."""
    said = ended.output
    if ended.breach:
        return Blame.COMMIT
    if OF_THIS_HOST.search(said):
        return Blame.HOST
    if UNREACHABLE.search(said):
        own_hosts = {urlsplit(url).hostname for line in asked_for for url in FAILED_URL.findall(line)}
        failed_hosts = {urlsplit(url).hostname for url in FAILED_URL.findall(said)}
        return Blame.COMMIT if failed_hosts & own_hosts else Blame.REGISTRY
    if NEEDS_BUILD.search(said):
        return Blame.SOURCE
    # uv says 1 for what cannot be resolved, 2 for what went wrong on the way; a signal is nobody's wish.
    return Blame.HOST if ended.status is not None and ended.status < 0 else Blame.COMMIT


def cannot_be_installed(ended: Ended) -> ProjectError:
    """The commit's own failure to be installed."""
    return ProjectError(f"the environment cannot be installed: {last_line(ended)}", output=ended.output)


def last_line(ended: Ended) -> str:
    """The most telling line: why the program was ended, uv's first cause, what was closed, or the last."""
    lines = [line.strip() for line in ended.output.splitlines() if line.strip()]
    causes = [line.removeprefix("cause: ") for line in lines if line.startswith("cause: ")]
    closed = [line for line in lines if "Permission denied" in line]
    if ended.breach or not lines:
        return ended.breach or f"it ended with status {ended.status}"
    line = causes[0] if causes else closed[-1] if closed else lines[-1]
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"


def write_requirements(folder: Path, wanted: Requirements) -> list[str]:
    """Files for uv in a folder, and the words of the command line that name them."""
    words: list[str] = []
    for option, name, lines in (
        ("--requirements", "requirements.txt", wanted.lines),
        ("--constraints", "constraints.txt", wanted.constraints),
    ):
        if lines:
            file = folder / name
            file.write_text("".join(f"{line}\n" for line in lines), "utf-8", "surrogateescape")
            file.chmod(0o644)
            words += [option, str(file)]
    return words


def uv_command(words: Sequence[str]) -> list[str]:
    """uv with a command, deaf to configuration files and content with the Pythons that are here."""
    fixed = ["--no-config", "--no-python-downloads", "--no-progress", "--color", "never"]
    return [str(uv_program()), *words, *fixed]


def compile_command(python: Path, venv: Path) -> list[str]:
    """What compiles an environment's modules, under the bare interpreter.

    That of the environment would run what packages put in its `.pth` files.
    """
    return [str(python), "-I", "-S", "-m", "compileall", "-q", "-q", "-j", "0", str(venv / "lib")]


def registry_variables(install: InstallSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Where packages come from: the settings, else the worker's own variables."""
    found = {
        name: environ[variant]
        for name in REGISTRY_VARIABLES
        for variant in (name.lower(), name)
        if environ.get(variant)
    }
    if install.index_url:
        found["UV_DEFAULT_INDEX"] = install.index_url
    if install.extra_index_urls:
        found["UV_INDEX"] = install.extra_index_urls
    return found


def without_credentials(variables: Mapping[str, str]) -> dict[str, str]:
    """The same, fit for code that is not trusted."""
    return {name: CREDENTIALS.sub("", value) for name, value in variables.items()}


def certificates(folder: Path) -> dict[str, str]:
    """Variables for the certificates that this host trusts; the worker's own bundle is copied to a folder."""
    bundle = os.environ.get("SSL_CERT_FILE", "")
    if bundle and Path(bundle).is_file():
        copy = folder / "certificates.pem"
        shutil.copyfile(bundle, copy)
        copy.chmod(0o644)
        return {"SSL_CERT_FILE": str(copy)}
    # Without any on this host, uv's own do.
    return {"UV_SYSTEM_CERTS": "true"} if any(map(os.path.exists, SYSTEM_CERTIFICATES)) else {}


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
