"""What editors know of a project's configuration: a JSON Schema, made of the types that read it.

In:  `Project` and what `ciapp.testing.project` checks besides.
Out: one document; `project.schema.json` beside this module is what it says, and a test holds both together.
     To write it anew:  python -m ciapp.testing.schema

Editors that check TOML do so by taplo, which knows keywords of draft 4 alone. So the document keeps to those
that mean the same in draft 4 and in 2020-12: no numeric `exclusiveMinimum`, no `propertyNames`, and nothing
beside a `$ref`, for there is none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from ciapp.project import MOST_PYTHONS, OLDEST_MINOR, VARIABLE, Project
from ciapp.testing.project import OWN_FILE

FILE = Path(__file__).with_name("project.schema.json")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Key → what an editor shows of it.
DESCRIPTIONS = {
    "python": 'Versions of Python, as "3.13": one run under each. Without it, one under the worker\'s own.',
    "install": 'What the tests need: "auto" (what the project declares), a list of arguments of'
    " `uv pip install`, or false for nothing.",
    "reuse": "Whether a pass of the same files, tested before, may stand in for a run.",
    "unittest": "How the tests are found; paths from the project's root.",
    "unittest.start": "The folder that discovery starts in. Without it: tests, else test, else the root.",
    "unittest.pattern": "What the names of test files are like.",
    "unittest.top": "The folder that modules are imported from. Without it: the root when the start folder"
    " is a package, else the start folder.",
    "env": "Environment variables of the tests; {checkout} in a value stands for the checkout's folder.",
    "limits": "What the tests are held to, below what the server's settings say.",
    "limits.test_s": "Seconds that one test may take.",
    "limits.run_s": "Seconds that all tests may take together.",
    "limits.memory_mib": "MiB of memory, of each process and of all together.",
}
#: Key → what holds besides its type.
BOUNDS: dict[str, dict[str, Any]] = {
    "python": {
        "items": {"type": "string", "pattern": rf"^3\.([{OLDEST_MINOR}-9]|[1-9][0-9])$"},
        "maxItems": MOST_PYTHONS,
        "uniqueItems": True,
    },
    "env": {
        "patternProperties": {f"^{VARIABLE.pattern}$": {"type": "string"}},
        "additionalProperties": False,
    },
    **{f"limits.{key}": {"minimum": 0, "not": {"enum": [0]}} for key in ("test_s", "run_s", "memory_mib")},
}


def project_schema() -> dict[str, Any]:
    """The schema of `.ciapp.toml`."""
    made = msgspec.json.schema(Project)
    root = _without_references(made, made["$defs"], "")
    return {"$schema": DIALECT, **root, "title": f"ciapp: {OWN_FILE}"}


def to_text(schema: dict[str, Any]) -> str:
    """The schema as a file holds it."""
    return json.dumps(schema, indent=2) + "\n"


def _without_references(node: dict[str, Any], known: dict[str, Any], path: str) -> dict[str, Any]:
    """A part of the schema that stands by itself, with what we know of the key besides its type."""
    if "$ref" in node:
        node = known[node["$ref"].rpartition("/")[2]]
    found = {key: value for key, value in node.items() if key not in ("title", "required")}
    # TOML has no null: it is how Python says that a key is missing.
    kinds = [kind for kind in found.pop("anyOf", ()) if kind != {"type": "null"}]
    found |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {}
    if found.get("default", "") in (None, "", [], {}):
        found.pop("default", None)
    if path in DESCRIPTIONS:
        found["description"] = DESCRIPTIONS[path]
    if "properties" in found:
        found["properties"] = {
            name: _without_references(below, known, f"{path}.{name}".lstrip("."))
            for name, below in found["properties"].items()
        }
    return found | BOUNDS.get(path, {})


if __name__ == "__main__":
    FILE.write_text(to_text(project_schema()), "utf-8")
