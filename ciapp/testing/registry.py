"""How to reach the package registry: what the settings, the worker's environment and the host say.

In:  the settings, and the worker's variables.
Out: variables for uv; the same without credentials, for what must not know them; or a configuration file for
     uv that holds the credentials in their place.

uv replaces `${NAME}` in the requirements of a commit, and in those of the packages that it asks for, by a
variable of its own environment. So nothing secret may stand there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ciapp.settings import InstallSettings

#: Variables of the worker that say which packages there are, and those that say how to reach them.
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_EXCLUDE_NEWER", "UV_INDEX", "UV_INDEX_STRATEGY")
WAY_VARIABLES = (
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "UV_HTTP_RETRIES",
    "UV_HTTP_TIMEOUT",
    "UV_INSECURE_HOST",
    "UV_OFFLINE",
)
SYSTEM_CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
#: Names of hosts that no server of names knows.
HOSTS_FILES = tuple(file for file in (Path("/etc/hosts"),) if file.exists())
PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
NAMED = re.compile(r"([A-Za-z0-9._-]+)=(.+)")  #: an index with a name that settings may call it by
CREDENTIALS = re.compile(r"(?:(?<=://)|(?<![^\s=]))[^\s/@=]+@")  #: user and password of a URL


def registry_variables(install: InstallSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Where packages come from: the settings, else the worker's own variables."""
    found = {
        name: environ[variant]
        for name in (*INDEX_VARIABLES, *WAY_VARIABLES)
        for variant in (name.lower(), name)
        if environ.get(variant)
    }
    if install.index_url:
        found["UV_DEFAULT_INDEX"] = install.index_url
    if install.extra_index_urls:
        found["UV_INDEX"] = install.extra_index_urls
    return found


def index_variables(install: InstallSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Those of them that say which packages there are, without credentials."""
    found = without_credentials(registry_variables(install, environ))
    return {name: value for name, value in found.items() if name in INDEX_VARIABLES}


def without_credentials(variables: Mapping[str, str]) -> dict[str, str]:
    """The same, fit for code that is not trusted."""
    return {name: CREDENTIALS.sub("", value) for name, value in variables.items()}


def split_credentials(variables: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """What uv is told in a file, as the text of a `uv.toml`, and what in variables: nothing secret."""
    lines = list(_proxies(variables))
    indexes = [(url, "") for url in variables.get("UV_INDEX", "").split()]
    indexes += [(url, "default = true") for url in variables.get("UV_DEFAULT_INDEX", "").split()]
    for url, default in indexes:
        found = NAMED.fullmatch(url)
        name, address = found.groups() if found else ("", url)
        lines += [
            "[[index]]",
            f"url = {_quoted(address)}",
            default,
            f"name = {_quoted(name)}" if name else "",
        ]
    told = ("UV_INDEX", "UV_DEFAULT_INDEX")
    rest = {
        name: value
        for name, value in variables.items()
        if name not in told and not (name in PROXIES and CREDENTIALS.search(value))
    }
    return "".join(f"{line}\n" for line in lines if line), rest


def _proxies(variables: Mapping[str, str]) -> Iterator[str]:
    """Those that ask for a password, as uv's configuration has them, and who is asked without them."""
    is_asked = False
    for key in ("http-proxy", "https-proxy"):
        value = variables.get(key.upper().replace("-", "_")) or variables.get("ALL_PROXY", "")
        if CREDENTIALS.search(value):
            is_asked = True
            yield f"{key} = {_quoted(value)}"
    direct = [host.strip() for host in variables.get("NO_PROXY", "").split(",") if host.strip()]
    if is_asked and direct:
        yield f"no-proxy = [{', '.join(map(_quoted, direct))}]"


def _quoted(text: str) -> str:
    """As a string of TOML."""
    return json.dumps(text, ensure_ascii=False)


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
