"""Pages as a browser shows them."""

from __future__ import annotations

import shutil
import subprocess
import urllib.error
import urllib.request

from tests.support.installation import Installation
from tests.support.services import need

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def read(url: str) -> str:
    """A page as the server sends it."""
    with urllib.request.urlopen(url, timeout=5) as page:
        content: bytes = page.read()
    return content.decode()


def answers(url: str) -> bool:
    """Whether a page is there."""
    try:
        return bool(read(url))
    except (urllib.error.URLError, OSError):
        return False


def shown(ci: Installation, url: str) -> str:
    """The page as a browser has it after its scripts ran."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        need("Chromium", "it is not installed")
    profile = f"--user-data-dir={ci.folder / 'profile'}"
    command = [browser, *QUIET, profile, "--virtual-time-budget=5000", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    return done.stdout.decode("utf-8", "replace")
