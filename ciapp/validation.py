"""Sentences about values of the wrong shape, in the words of TOML.

In:  what msgspec says of a value, the type it was to have, and the document that it stands in.
Out: the path of keys that lead to it, and a sentence that ends with the next step.

msgspec calls each key of a table of free names "[...]". Which one it was is found by trying them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

import msgspec

PLACE = re.compile(r" - at `\$([\w.\[\]]*)`$")  #: where msgspec found a value of the wrong shape
UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+|\[\d+\]")  #: a key that TOML takes without quotes, or an index
ANY_KEY, NO_CHOICE = "[...]", "Invalid enum value "  #: as msgspec says


def explain_validation(error: msgspec.ValidationError, root: type, document: Any) -> str:
    """A sentence about a value of the wrong shape; `root` is the document's type, for suggestions."""
    path = invalid_path(error, root, document)
    full = written_path(path)
    if UNKNOWN_FIELD.match(str(error)):
        # What is written most like it, wherever it belongs.
        known = get_close_matches(path[-1], [*_field_names(root)], 1)
        hint = f"did you mean {known[0]!r}?" if known else "the README lists every setting"
        return f"unknown setting {full!r}; {hint}"
    return f"setting {full!r}: {explain_value(error, _type_at(root, path))}; correct it"


def explain_value(error: msgspec.ValidationError, wanted: Any) -> str:
    """What is wrong with one value that was to have the type `wanted`."""
    said = PLACE.sub("", str(error))
    if get_origin(wanted) is Literal and said.startswith(NO_CHOICE):
        return f"{said.removeprefix(NO_CHOICE)} is none of {', '.join(map(str, get_args(wanted)))}"
    # TOML has no null, and calls an object a table.
    return lower_first(said.replace(" | null", "").replace("`object`", "`table`"))


def invalid_path(error: msgspec.ValidationError, root: type, document: Any) -> tuple[str, ...]:
    """The keys that lead to a value of the wrong shape; "[3]" for an item of a list."""
    place, unknown = PLACE.search(str(error)), UNKNOWN_FIELD.match(PLACE.sub("", str(error)))
    steps = re.findall(r"\[[^\]]*\]|\w+", place[1]) if place else []
    path: list[str] = []
    for step in steps:
        key = _wrong_key(root, path, document) if step == ANY_KEY else step
        path.append(key)
    return (*path, unknown[1]) if unknown else tuple(path)


def written_path(path: tuple[str, ...]) -> str:
    """Keys as TOML writes them: dotted, quoted where they must be."""
    keys = [key if BARE_KEY.fullmatch(key) else f'"{key}"' for key in path]
    return ".".join(keys).replace(".[", "[")


def lower_first(text: str) -> str:
    """The text with a small first letter, to stand within a sentence."""
    return text[:1].lower() + text[1:]


def _wrong_key(root: type, path: list[str], document: Any) -> str:
    """Which key of the table at `path` has a value of the wrong shape."""
    [_, wanted] = get_args(_type_at(root, path))
    for key in path:
        document = document[key]
    for key, value in document.items():
        try:
            msgspec.convert(value, wanted)
        except msgspec.ValidationError:
            return str(key)
    return ANY_KEY


def _type_at(root: Any, path: tuple[str, ...] | list[str]) -> Any:
    for key in path:
        if get_origin(root) in (dict, list):
            root = get_args(root)[-1]
        elif isinstance(root, type) and issubclass(root, msgspec.Struct):
            root = next((field.type for field in msgspec.structs.fields(root) if field.name == key), Any)
        else:
            return Any
    return root


def _field_names(root: Any) -> Iterator[str]:
    for inner in (root, *get_args(root)):
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            for field in msgspec.structs.fields(inner):
                yield field.name
                yield from _field_names(field.type)
