"""Wheels that builds claim to have made, and stand-ins for them.

In:  a file that untrusted code left behind.
Out: a `Wheel`; a stub: a wheel of the same name, version and requirements that holds nothing.

What a project requires changes seldom, and its wheel often. So an environment is made for the stub first,
with all that the project requires; and each of the project's own is made from that one.
"""

from __future__ import annotations

import email
import errno
import hashlib
import os
import re
import shutil
import stat
import zipfile
from pathlib import Path

import msgspec

from ciapp.errors import ProjectError
from ciapp.testing.metadata import normalize
from ciapp.testing.requirements import LocalProject

LARGEST_METADATA = 1 << 20
WHEEL_NAME = re.compile(r"(?P<name>[A-Za-z0-9._]+)-(?P<version>[A-Za-z0-9._!+]+)(-[A-Za-z0-9._]+){3,4}\.whl")
METADATA = re.compile(r"[^/]+\.dist-info/METADATA")
#: Lines of METADATA that say what else is to be installed.
REQUIRING = ("Metadata-Version", "Name", "Version", "Requires-Python", "Requires-Dist", "Provides-Extra")
STUB_FORMAT = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
LONG_AGO = (1980, 1, 1, 0, 0, 0)


class Wheel(msgspec.Struct, frozen=True, kw_only=True):
    """A wheel, and what it says of itself."""

    file: Path
    name: str
    version: str
    extras: tuple[str, ...]  #: that it declares
    requiring: str  #: the lines of its METADATA that say what it requires

    @property
    def requiring_digest(self) -> str:
        """Equal for wheels that are alike to those who install what they require."""
        return hashlib.sha256(self.requiring.encode("utf-8", "replace")).hexdigest()


def take_wheel(claimed: Path, folder: Path) -> Wheel:
    """A copy, in a folder, of the wheel that a build claims to have made.

    Raises ProjectError when it is none.
    """
    found = WHEEL_NAME.fullmatch(claimed.name)
    if found is None:
        raise ProjectError(f"the project cannot be built: {claimed.name!r} is no name of a wheel")
    file = folder / claimed.name
    try:
        copy_claimed(claimed, file)
        with zipfile.ZipFile(file) as archive:
            [metadata] = [name for name in archive.namelist() if METADATA.fullmatch(name)]
            with archive.open(metadata) as opened:
                text = opened.read(LARGEST_METADATA).decode("utf-8", "replace")
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ProjectError(f"the project cannot be built: {claimed.name} is no wheel: {error}") from error
    headers = email.message_from_string(text)
    lines = [
        f"{key}: {' '.join(value.split())}"
        for key in REQUIRING
        for value in headers.get_all(key, [])
        if isinstance(value, str)
    ]
    return Wheel(
        file=file,
        name=normalize(found["name"]),
        version=found["version"],
        extras=tuple(normalize(extra) for extra in headers.get_all("Provides-Extra", [])),
        requiring="".join(f"{line}\n" for line in lines),
    )


def write_stub(wheel: Wheel, folder: Path) -> Path:
    """A wheel that requires what another does and holds nothing."""
    distribution = f"{wheel.name.replace('-', '_')}-{wheel.version}"
    file = folder / f"{distribution}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in (("METADATA", wheel.requiring), ("WHEEL", STUB_FORMAT), ("RECORD", "")):
            archive.writestr(zipfile.ZipInfo(f"{distribution}.dist-info/{name}", LONG_AGO), text)
    file.chmod(0o644)
    return file


def requirement(project: LocalProject, wheel: Wheel, address: str) -> str:
    """The line that installs a project from an address, with the extras that are wanted of it."""
    first = next((extra for extra in project.first_of if extra in wheel.extras), None)
    extras = ",".join((*project.extras, *([first] if first else [])))
    marker = f" ; {project.marker}" if project.marker else ""
    return f"{wheel.name}{f'[{extras}]' if extras else ''} @ {address}{marker}"


def copy_claimed(claimed: Path, target: Path) -> None:
    """Copy a file that untrusted code has made, if it is one. Raises OSError when it is not."""
    descriptor = os.open(claimed, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as source:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(claimed))
        with target.open("xb") as copy:
            shutil.copyfileobj(source, copy)
    target.chmod(0o644)
