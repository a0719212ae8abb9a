"""The server's settings: one TOML file, and a CIAPP_* variable for each of them.

In:  `--config FILE`, else $CIAPP_CONFIG, else ~/.config/ciapp/ciapp.toml, else /etc/ciapp/ciapp.toml, else
     defaults; then CIAPP_<NAME> variables, whose names join a table and its key: CIAPP_LIMITS_RUN_S.
Out: one frozen `Settings`; or a SettingsError that names the file, the setting, and what it should be.

`config/ciapp.toml` shows every setting with its default; a test holds the two together.
"""

from __future__ import annotations

import fnmatch
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
import platformdirs

from ciapp.errors import SettingsError
from ciapp.project import PYTHON_VERSION, UnfitError, check_project
from ciapp.validation import explain_validation, explain_value

RefPolicy = Literal["each", "tip", "off"]

EMBEDDED_BROKER = "embedded://"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
ALL_PYTHONS = "auto"
SEARCHED = (Path("~/.config/ciapp/ciapp.toml"), Path("/etc/ciapp/ciapp.toml"))
BROKERS = ("embedded", "amqp", "amqps", "pyamqp", "redis", "rediss", "sentinel")  #: schemes of broker_url
DATABASES = ("sqlite", "postgresql", "postgresql+psycopg", "postgres")  #: schemes of database_url
PREFIX = "CIAPP_"  #: of variables
VARIABLES_OF_OURS = frozenset({"CIAPP_CONFIG"})  #: CIAPP_* variables that are no settings
PORT = re.compile(r"[a-z+]+://(?:[^/?#]*@)?(?:\[[^]/]*\]|[^:/?#@]*):([^/?#@]+)(?:[/?#]|$)")  #: of a URL
LAST_PORT = 65535
ESCAPE = "write special characters of a password as %XX"
LONGEST_S = 1_000_000  #: of a time in seconds; the kernel waits for no more than 2³¹ ms at once
LARGEST_NUMBER = 1_000_000_000  #: of any other number: as MiB, it still fits the kernel's limits
#: Numbers with bounds of their own; a date that many days ago must be one.
LARGEST = {"monitor_port": LAST_PORT, "concurrency": 1000, "retention.keep_days": 100_000}
MAY_BE_ZERO = ("concurrency", "limits.restarts", "monitor_port")
DEFAULT_REFS: dict[str, RefPolicy] = {"refs/heads/*": "each", "refs/tags/*": "each"}


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one run may use. A commit's own configuration may lower these, never raise them."""

    test_s: float = 60.0  #: wall time of one test
    run_s: float = 1800.0  #: wall time of one run, checkout and environment not counted
    memory_mib: int = 4096  #: of each process, and of all processes of the run together
    processes: int = 512  #: processes and threads of the run
    file_mib: int = 1024  #: size of one file
    disk_mib: int = 4096  #: what the run may have on disk, all files together; each counts for 4 KiB at least
    cpu_s: float = 7200.0  #: processor time of one process
    test_output_kib: int = 64  #: output kept per test: head and tail; the rest is counted and dropped
    run_output_kib: int = 16384  #: output kept per run
    restarts: int = 20  #: further children after a crash or a timeout, before the rest is not-run


class InstallSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How what commits ask for is installed. Credentials in URLs never reach code of commits or packages."""

    index_url: str = ""  #: the package index; empty: PyPI, or what the worker's $UV_DEFAULT_INDEX says
    extra_index_urls: str = ""  #: further indexes, separated by spaces; these come first
    network: bool = False  #: whether code that builds from source may reach the network
    timeout_s: float = 900.0  #: wall time of one step of an installation
    cache_mib: int = 20480  #: environments and downloads kept on this host


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the dispatcher keeps of finished runs; 0 sets no limit. See `ciapp.results.retention`."""

    keep_days: int = 0  #: runs that finished within so many days stay
    keep_runs: int = 0  #: so many runs of each repository stay, however old
    max_mib: int = 0  #: of all stored reports; beyond it the oldest runs go


class RepositorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the server grants to, or asks of, one repository."""

    clone_url: str = ""  #: where workers fetch from; empty: the path that the hook was installed in
    network: bool = False  #: whether its tests may reach beyond loopback
    refs: dict[str, RefPolicy] = {}  #: ref pattern → policy; the first match wins, DEFAULT_REFS come last
    supersede: list[str] = []  #: ref patterns; a newer push puts off what older ones to the same ref brought
    project: dict[str, Any] = {}  #: defaults for what a commit's own .ciapp.toml leaves out


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting of a ciapp installation."""

    state_dir: str = ""  #: all state of this host; empty: /var/lib/ciapp for root, else by the XDG rules
    broker_url: str = EMBEDDED_BROKER  #: embedded://, amqp://…, redis://…
    database_url: str = ""  #: sqlite:///FILE or postgresql://…; empty: a SQLite file in state_dir
    host: str = ""  #: this machine's name in the ledger; empty: its host name
    concurrency: int = 0  #: worker slots of `ciapp up` and `ciapp worker`; 0: one per processor
    #: Pythons of this host that commits may name: versions, "3.13"; paths of programs; "auto": all it has
    pythons: list[str] = msgspec.field(default_factory=lambda: [ALL_PYTHONS])
    sandbox: Literal["auto", "required", "off", "off-as-root"] = "auto"
    lease_s: float = 30.0  #: a running worker that is silent for so long has lost its run
    attempts: int = 3  #: tries at one run before it ends as infra-error
    reconcile_s: float = 30.0  #: how often the dispatcher compares refs with the ledger
    monitor_address: str = "127.0.0.1"
    monitor_port: int = 5555
    limits: Limits = Limits()
    install: InstallSettings = InstallSettings()
    retention: RetentionSettings = RetentionSettings()
    repository: dict[str, RepositorySettings] = {}

    @property
    def state_path(self) -> Path:
        """The folder of all state on this host; absolute."""
        if self.state_dir:
            return Path(self.state_dir).expanduser().absolute()
        if os.geteuid() == 0:
            # Root's home is closed to the identities that tests run under; a system folder is not.
            return Path("/var/lib/ciapp")
        return Path(platformdirs.user_state_dir("ciapp"))

    @property
    def database(self) -> str:
        """The ledger's address as SQLAlchemy takes it, driver included."""
        if not self.database_url:
            return f"sqlite:///{self.state_path / 'ledger.sqlite3'}"
        for scheme in ("postgresql://", "postgres://"):
            if self.database_url.startswith(scheme):
                return "postgresql+psycopg://" + self.database_url.removeprefix(scheme)
        return self.database_url

    @property
    def host_name(self) -> str:
        """This machine's name in the ledger."""
        return self.host or socket.gethostname()

    @property
    def slots(self) -> int:
        """How many runs this host tests at a time."""
        return self.concurrency or os.cpu_count() or 1

    def for_repository(self, name: str) -> RepositorySettings:
        """The settings of one repository; defaults when the file does not name it."""
        return self.repository.get(name, RepositorySettings())

    def ref_policy(self, name: str, ref: str) -> RefPolicy:
        """What a push to `ref` of repository `name` asks for."""
        for pattern, policy in (*self.for_repository(name).refs.items(), *DEFAULT_REFS.items()):
            if fnmatch.fnmatchcase(ref, pattern):
                return policy
        return "off"

    def supersedes(self, name: str, ref: str) -> bool:
        """Whether a push to `ref` of repository `name` puts off what earlier pushes to it brought."""
        return any(fnmatch.fnmatchcase(ref, pattern) for pattern in self.for_repository(name).supersede)


def load_settings(config: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in force. Raises SettingsError for a file or variable that cannot be used."""
    environ = os.environ if environ is None else environ
    file = _settings_file(config, environ)
    data = _read_toml(file) if file else {}
    settings = _convert(data, str(file))
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in VARIABLES_OF_OURS:
            settings = _with_variable(settings, variable, environ[variable])
    _check(settings, str(file or "the environment"))
    return settings


def settings_file(config: Path | None = None) -> Path | None:
    """The file that `load_settings` would read; None when there is none."""
    return _settings_file(config, os.environ)


def variable_names() -> dict[str, tuple[str, ...]]:
    """CIAPP_<NAME> → the path of the setting it sets; tables of repositories have no variables."""
    names: dict[str, tuple[str, ...]] = {}
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            for key in msgspec.structs.fields(field.type):
                names[f"CIAPP_{field.name.upper()}_{key.name.upper()}"] = (field.name, key.name)
        elif field.name != "repository":
            names[f"CIAPP_{field.name.upper()}"] = (field.name,)
    return names


def _settings_file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    if config is None and environ.get("CIAPP_CONFIG"):
        config = Path(environ["CIAPP_CONFIG"])
    if config is not None:
        if not config.exists():
            raise SettingsError(f"settings file {config} does not exist; check --config and $CIAPP_CONFIG")
        return config.absolute()
    found = [path for path in (path.expanduser() for path in SEARCHED) if path.is_file()]
    return found[0] if found else None


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not valid TOML: {error}; correct it there") from error
    except IsADirectoryError as error:
        raise SettingsError(
            f"settings file {file} is a folder; give a file in --config or $CIAPP_CONFIG"
        ) from error
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}; check its permissions") from error


def _convert(data: dict[str, Any], source: str) -> Settings:
    try:
        return msgspec.convert(data, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: {explain_validation(error, Settings, data)}") from error


def _with_variable(settings: Settings, variable: str, text: str) -> Settings:
    path = variable_names().get(variable)
    if path is None:
        # Without what all have in common: it would make any two alike.
        names = [name.removeprefix(PREFIX) for name in variable_names()]
        known = get_close_matches(variable.removeprefix(PREFIX), names, 1)
        hint = f"did you mean {PREFIX}{known[0]}?" if known else "unset it, or see the README for the list"
        raise SettingsError(f"${variable} names no setting; {hint}")
    holder: msgspec.Struct = getattr(settings, path[0]) if len(path) == 2 else settings
    [wanted] = [field.type for field in msgspec.structs.fields(holder) if field.name == path[-1]]
    try:
        value = text.split() if wanted == list[str] else msgspec.convert(text, wanted, strict=False)
    except msgspec.ValidationError as error:
        said = explain_value(error, wanted)
        raise SettingsError(f"${variable} is {text!r}: {said}; correct it") from error
    changed = msgspec.structs.replace(holder, **{path[-1]: value})
    if isinstance(changed, Settings):
        return changed
    return msgspec.structs.replace(settings, **{path[0]: changed})


def _check(settings: Settings, source: str) -> None:
    """Bounds that types do not express."""
    for name in ("broker_url", "database_url"):
        _check_url(name, getattr(settings, name), source)
    for path in variable_names().values():
        value = getattr(settings, path[0])
        value = value if len(path) == 1 else getattr(value, path[1])
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_number(".".join(path), value, source)
    for python in settings.pythons:
        if python != ALL_PYTHONS and not python.startswith("/") and not PYTHON_VERSION.fullmatch(python):
            raise SettingsError(
                f'{source}: setting \'pythons\' has {python!r}; give "auto", versions as "3.13", '
                "and absolute paths of Python programs"
            )
    for name, repository in settings.repository.items():
        if not re.fullmatch(NAME_PATTERN, name):
            raise SettingsError(
                f"{source}: setting 'repository' has {name!r}, which can be no repository's name; "
                "give the name that it has in ciapp: letters, digits, '.', '_' and '-'"
            )
        try:
            check_project(repository.project, msgspec.structs.asdict(settings.limits))
        except UnfitError as error:
            raise SettingsError(f"{source}: [repository.{name}.project]: {error}") from error


def _check_url(name: str, text: str, source: str) -> None:
    """The scheme and the port; the rest may hold a password, and is not shown."""
    known = {"broker_url": BROKERS, "database_url": DATABASES}[name]
    scheme, separator, _ = text.partition("://")
    if (scheme or separator) and (not separator or scheme not in known):
        said = f"starts with {scheme + separator!r}" if separator else "is no URL"
        raise SettingsError(f"{source}: setting {name!r} {said}; give one of {', '.join(known)}, then ://…")
    for url in text.split(";"):  # several brokers, of which one is enough
        found = PORT.match(url)
        if name == "broker_url" and not _can_be_split(url):
            raise SettingsError(f"{source}: setting {name!r} is no URL; {ESCAPE}")
        if found and not (found[1].isascii() and found[1].isdigit() and 0 < int(found[1]) <= LAST_PORT):
            raise SettingsError(
                f"{source}: setting {name!r} has a port that is no number from 1 to {LAST_PORT}; "
                f"correct it, and {ESCAPE}"
            )


def _can_be_split(url: str) -> bool:
    try:
        urlsplit(url)
    except ValueError:
        return False
    return True


def _check_number(name: str, value: float, source: str) -> None:
    most = LARGEST.get(name, LONGEST_S if name.endswith("_s") else LARGEST_NUMBER)
    wanted = ""
    # Written so that "not a number", which is neither below nor above any, is refused.
    if name in MAY_BE_ZERO or name.startswith("retention."):
        wanted = "" if value >= 0 else "0 or more"
    elif not value > 0:
        wanted = "a number above 0"
    wanted = wanted or (f"at most {most}" if value > most else "")
    if wanted:
        raise SettingsError(f"{source}: setting {name!r} is {value}; give {wanted}")
