"""What an environment depends on, as a key.

In:  the checkout, the interpreter, the settings, and what is wanted.
Out: a digest; equal keys stand for environments that may stand for each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ciapp.settings import InstallSettings
from ciapp.testing.building import Built
from ciapp.testing.environment import Interpreter
from ciapp.testing.metadata import PYPROJECT, Build, read_pyproject
from ciapp.testing.registry import index_variables
from ciapp.testing.requirements import LocalProject, Requirements, read_file
from ciapp.testing.sources import digest_inputs
from ciapp.testing.uv import uv_version
from ciapp.testing.wheels import requirement

FORMAT = 1  #: of environments; another number makes all of them anew
VERSION_TAG = re.compile(rb"refs/tags/[A-Za-z_-]*?v?(\d+(?:\.\d+)+)$", re.MULTILINE)
NO_VERSION = "0.0.0"


class Keys:
    """Keys of environments for one checkout."""

    def __init__(
        self, checkout: Path, checkout_inside: Path, interpreter: Interpreter, install: InstallSettings
    ) -> None:
        """`checkout_inside` is where tests find the checkout."""
        self._checkout = checkout
        self._checkout_inside = checkout_inside
        self._interpreter = interpreter
        self._install = install

    def key(self, wanted: Requirements, *, tree: str = "") -> str:
        """What the environment depends on, as a digest. Without a tree: of what skeletons show."""
        facts = {
            "format": FORMAT,
            "python": [str(self._interpreter.python), self._interpreter.version],
            "uv": uv_version(),
            "index": index_variables(self._install, os.environ),
            "wanted": msgspec.to_builtins(wanted),
            "wheels": [
                hashlib.sha256(read_file(self._checkout, name, "install")).hexdigest()
                for name in wanted.wheels
            ],
            "projects": [
                [digest_inputs(self._checkout / one.path, self.build_of(one)), self.version()]
                for one in wanted.projects
            ],
            "checkout": str(self._checkout_inside) if wanted.projects else "",
            "tree": tree,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def base_key(self, wanted: Requirements, builds: Sequence[Built]) -> str:
        """As `key`, for the environment with stubs of what was built."""
        projects = [
            requirement(project, built.wheel, built.wheel.requiring_digest)
            for project, built in zip(wanted.projects, builds, strict=True)
        ]
        return self.key(
            msgspec.structs.replace(wanted, lines=(*projects, *wanted.lines), projects=(), files=())
        )

    def build_of(self, project: LocalProject) -> Build:
        """How a project says that it is built."""
        name = os.path.normpath(Path(project.path, PYPROJECT))
        if not (self._checkout / name).is_file():
            return Build()
        return read_pyproject(name, read_file(self._checkout, name, name)).build

    def version(self) -> str:
        """The highest version that a tag names: for builds that would ask git."""
        try:
            packed = (self._checkout / ".git" / "packed-refs").read_bytes()
        except OSError:
            return NO_VERSION
        versions = [found.decode("ascii") for found in VERSION_TAG.findall(packed)]
        return max(versions, key=lambda one: tuple(map(int, one.split("."))), default=NO_VERSION)
