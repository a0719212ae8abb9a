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

import msgspec
import platformdirs

from ciapp.errors import SettingsError

RefPolicy = Literal["each", "tip", "off"]

EMBEDDED_BROKER = "embedded://"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
PYTHON_VERSION = re.compile(r"3\.(0|[1-9][0-9]?)")  #: as settings and commits name one: "3.13"
ALL_PYTHONS = "auto"
SEARCHED = (Path("~/.config/ciapp/ciapp.toml"), Path("/etc/ciapp/ciapp.toml"))
BROKERS = ("embedded", "amqp", "amqps", "pyamqp", "redis", "rediss", "sentinel")  #: schemes of broker_url
DATABASES = ("sqlite", "postgresql", "postgresql+psycopg", "postgres")  #: schemes of database_url
VARIABLES_OF_OURS = frozenset({"CIAPP_CONFIG"})  #: CIAPP_* variables that are no settings
PLACE = re.compile(r" - at `\$([\w.\[\]]*)`$")  #: where msgspec found a value of the wrong shape
UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
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
    sandbox: Literal["auto", "required", "off"] = "auto"
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
        if variable.startswith("CIAPP_") and variable not in VARIABLES_OF_OURS:
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
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}; check its permissions") from error


def _convert(data: dict[str, Any], source: str) -> Settings:
    try:
        return msgspec.convert(data, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: {explain_validation(error, Settings)}") from error


def _with_variable(settings: Settings, variable: str, text: str) -> Settings:
    path = variable_names().get(variable)
    if path is None:
        known = get_close_matches(variable, variable_names(), 1)
        hint = f"did you mean {known[0]}?" if known else "unset it, or see the README for the list"
        raise SettingsError(f"${variable} names no setting; {hint}")
    holder: msgspec.Struct = getattr(settings, path[0]) if len(path) == 2 else settings
    [wanted] = [field.type for field in msgspec.structs.fields(holder) if field.name == path[-1]]
    try:
        value = text.split() if wanted == list[str] else msgspec.convert(text, wanted, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"${variable} is {text!r}: {_lower_first(str(error))}; correct it") from error
    changed = msgspec.structs.replace(holder, **{path[-1]: value})
    if isinstance(changed, Settings):
        return changed
    return msgspec.structs.replace(settings, **{path[0]: changed})


def explain_validation(error: msgspec.ValidationError, root: type) -> str:
    """A sentence about a value of the wrong shape; `root` is the type whose fields are suggested."""
    path = invalid_path(error)
    full = ".".join(path).replace(".[", "[")
    if UNKNOWN_FIELD.match(str(error)):
        known = get_close_matches(path[-1], _field_names(root), 1)
        hint = f"did you mean {known[0]!r}?" if known else "the README lists every setting"
        return f"unknown setting {full!r}; {hint}"
    # TOML has no null, and calls an object a table.
    said = PLACE.sub("", str(error)).replace(" | null", "").replace("`object`", "`table`")
    return f"setting {full!r}: {_lower_first(said)}; correct it"


def invalid_path(error: msgspec.ValidationError) -> tuple[str, ...]:
    """The keys that lead to a value of the wrong shape; "[3]" for an item of a list, "[...]" of a table."""
    place, unknown = PLACE.search(str(error)), UNKNOWN_FIELD.match(PLACE.sub("", str(error)))
    path = re.findall(r"\[[^\]]*\]|\w+", place[1]) if place else []
    return (*path, unknown[1]) if unknown else tuple(path)


def _field_names(root: type) -> list[str]:
    names = []
    for field in msgspec.structs.fields(root):
        names.append(field.name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            names += _field_names(field.type)
    return names + (_field_names(RepositorySettings) if root is Settings else [])


def _check(settings: Settings, source: str) -> None:
    """Bounds that types do not express."""
    schemes = {"broker_url": BROKERS, "database_url": DATABASES}
    for name, known in schemes.items():
        # The rest of a URL may hold a password, and is not shown.
        scheme, separator, _ = getattr(settings, name).partition("://")
        if (scheme or separator) and (not separator or scheme not in known):
            said = f"starts with {scheme + separator!r}" if separator else "is no URL"
            raise SettingsError(
                f"{source}: setting {name!r} {said}; give one of {', '.join(known)}, then ://…"
            )
    limits = {f"limits.{name}": value for name, value in msgspec.structs.asdict(settings.limits).items()}
    positive = {
        "lease_s": settings.lease_s,
        "attempts": settings.attempts,
        "reconcile_s": settings.reconcile_s,
        "install.timeout_s": settings.install.timeout_s,
        "install.cache_mib": settings.install.cache_mib,
    }
    for name, value in (positive | limits).items():
        if value <= 0 and name != "limits.restarts":
            raise SettingsError(f"{source}: setting {name!r} is {value}; give a number above 0")
    for python in settings.pythons:
        if python != ALL_PYTHONS and not python.startswith("/") and not PYTHON_VERSION.fullmatch(python):
            raise SettingsError(
                f'{source}: setting \'pythons\' has {python!r}; give "auto", versions as "3.13", '
                "and absolute paths of Python programs"
            )
    kept = {f"retention.{name}": value for name, value in msgspec.structs.asdict(settings.retention).items()}
    for name, value in ({"concurrency": settings.concurrency} | kept).items():
        if value < 0:
            raise SettingsError(f"{source}: setting {name!r} is {value}; give 0 or more")


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
