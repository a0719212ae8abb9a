"""Build one wheel of a project, by the hooks of PEP 517 and PEP 660.

Run as a script by the interpreter of an environment that holds the project's build requirements, Python 3.8
or later, the standard library alone, in the checkout's root:

    python frontend.py '{"backend": ..., "backend_path": [...], "folder": ".", "out": ..., "editable": true}'

It leaves `result.json` in the folder `out`: {"wheel": NAME, "editable": true} for a wheel that stands beside
it, or {"requires": [...]} when the backend asks for more than there is, and nothing was built.
"""

# ruff: noqa: PTH100, PTH118, PTH123, UP
from __future__ import annotations

import importlib
import json
import os
import re
import sys
from importlib import metadata

if False:  # typing.TYPE_CHECKING, whose import costs time
    from typing import Any


def main() -> None:
    """Carry out the order on the command line."""
    order = json.loads(sys.argv[1])
    os.chdir(order["folder"])
    sys.path[0:1] = [os.path.abspath(folder) for folder in order["backend_path"]]
    sys.argv[1:] = []  # setup.py, which runs in this process, would take it for its own
    backend = load(order["backend"])
    is_editable = order["editable"] and hasattr(backend, "build_editable")
    kind = "editable" if is_editable else "wheel"
    asked = list(getattr(backend, "get_requires_for_build_" + kind, lambda settings: [])(None))
    if any(not is_installed(requirement) for requirement in asked):
        result: dict[str, Any] = {"requires": asked}
    else:
        wheel = getattr(backend, "build_" + kind)(order["out"], None)
        result = {"wheel": wheel, "editable": is_editable}
    with open(os.path.join(order["out"], "result.json"), "w", encoding="utf-8") as file:
        json.dump(result, file)


def load(name: str) -> Any:
    """The object that a backend's name stands for."""
    module, _, attributes = name.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in filter(None, attributes.split(".")):
        found = getattr(found, attribute)
    return found


def is_installed(requirement: str) -> bool:
    """Whether some version of what a requirement names is here; which one, the installer saw to."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement.strip())
    try:
        metadata.distribution(name.group() if name else requirement)
    except metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
