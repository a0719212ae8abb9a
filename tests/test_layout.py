"""The house keeps its drawing: imports point down its storeys, and each outside thing has one door.

Read from the source with ast, so that a module counts whether or not it can be imported here.
"""

import ast
import sys
import tempfile
import textwrap
import unittest
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
LINES = 350  #: of one module; near 300 it is time to split it by noun

#: From the top down. A module may import its own room and any storey below; rooms of one storey do not know
#: each other. A room is a module or a package.
STOREYS = (
    {
        "cli": (
            "cli",
            "context",
            "start",
            "program",
            "hooking",
            "keeping",
            "serving",
            "show",
            "progress",
            "demo",
            "desk",
            "doctor",
            "services",
        )
    },
    {"web": ("web",)},
    {"intake": ("intake",)},
    {
        "celery": (
            "tasks",
            "celery",
            "worker",
            "node",
            "lookout",
            "mends",
            "transport",
            "broker",
            "connection",
        )
    },
    {"backend": ("backend",), "testing": ("testing",), "outlets": ("outlets",)},
    {"results": ("results",)},
    {"ground": ("git", "git_dirs", "settings", "project", "validation", "errors", "logs")},
)

#: Library → the rooms and modules that are its door.
CELERY = tuple(
    f"ciapp.{name}" for name in ("celery", "tasks", "backend", "worker", "transport", "mends", "connection")
)
DOORS = {
    "git": ("ciapp.git",),
    "sqlalchemy": ("ciapp.results",),
    "alembic": ("ciapp.results",),
    "celery": CELERY,
    "kombu": CELERY,
    "amqp": CELERY,
    "click": tuple(
        f"ciapp.{name}"
        for name in (
            "cli",
            "context",
            "program",
            "hooking",
            "keeping",
            "serving",
            "show",
            "progress",
            "demo",
            "desk",
            "doctor",
        )
    ),
    "tornado": ("ciapp.web",),
    "flower": ("ciapp.web",),
    "junitparser": ("ciapp.outlets.junit",),
}

#: Modules with an import inside a function, and why.
DEFERRED = {
    "ciapp.cli": "a command pays for its own imports alone: `ciapp log` does without the 0.2 s of celery",
    "ciapp.hooking": "as for ciapp.cli, which reads all commands",
    "ciapp.serving": "as for ciapp.cli, which reads all commands",
    "ciapp.keeping": "a restore migrates, and alembic is slow to import",
    "ciapp.desk.commands": "as for ciapp.cli; testing brings the sandbox and the environments along",
    "ciapp.doctor": "the worker's rooms bring celery and the pipeline along; only two checks look at them",
    "ciapp.results.database": "alembic is slow to import, and nearly every command finds its tables ready",
    "ciapp.testing.child.listing": "hashlib, for hardly anybody: it costs 3 ms of each start",
    "ciapp.testing.child.program": "unittest is what the checkout's sys.path makes it, once that is set",
}


class Import(NamedTuple):
    """One import of one module by another."""

    importer: str
    imported: str
    relative: bool  #: written with leading dots
    deferred: bool  #: inside a function

    def __str__(self) -> str:
        return f"{self.importer} imports {self.imported}"


class House:
    """The modules below a folder that holds a package `ciapp`."""

    def __init__(self, root: Path) -> None:
        self.files = {module_name(root, file): file for file in sorted(root.glob("ciapp/**/*.py"))}
        self.imports = [one for name in self.files for one in self._imports_of(name)]

    def inner_imports(self) -> list[Import]:
        return [one for one in self.imports if one.imported in self.files]

    def outer_imports(self) -> list[Import]:
        return [one for one in self.imports if one.imported not in self.files]

    def _imports_of(self, name: str) -> Iterator[Import]:
        file = self.files[name]
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for node, deferred in import_statements(ast.parse(file.read_bytes())):
            level = 0 if isinstance(node, ast.Import) else node.level
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                above = package.rsplit(".", level - 1)[0] if level else ""
                base = ".".join(filter(None, (above, node.module)))
                within = [f"{base}.{alias.name}" for alias in node.names]
                targets = [target if target in self.files else base for target in within]
            for target in dict.fromkeys(targets):
                yield Import(name, target, relative=level > 0, deferred=deferred)


def module_name(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_statements(
    node: ast.AST, deferred: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import below the node, and whether it is inside a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, deferred
        else:
            inside = deferred or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from import_statements(child, inside)


def is_in(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


def place_of(module: str) -> tuple[int, str] | None:
    """Storey, counted from the top, and room; None for a module that the drawing does not have."""
    if module == "ciapp":
        return len(STOREYS), "ciapp"  # below all others: it holds the version, and imports nothing
    for storey, rooms in enumerate(STOREYS):
        for room, names in rooms.items():
            if is_in(module, tuple(f"ciapp.{name}" for name in names)):
                return storey, room
    return None


def upward(house: House) -> list[str]:
    """Imports from a higher storey, or from another room of the same one."""
    found = []
    for one in house.imports:
        importer, imported = place_of(one.importer), place_of(one.imported)
        if importer and imported and importer != imported and importer[0] >= imported[0]:
            found.append(str(one))
    return found


def cycle(house: House) -> list[str]:
    """The modules of one circle of imports; empty when there is none."""
    graph: dict[str, set[str]] = {name: set() for name in house.files}
    for one in house.inner_imports():
        graph[one.importer].add(one.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def past_the_door(house: House) -> list[str]:
    return [
        str(one)
        for one in house.outer_imports()
        if (library := one.imported.partition(".")[0]) in DOORS and not is_in(one.importer, DOORS[library])
    ]


def deferred(house: House) -> set[str]:
    return {one.importer for one in house.imports if one.deferred}


def not_for_the_child(house: House) -> list[str]:
    """What the child imports that the commit's interpreter may not have, `ciapp` by its name included."""
    child = ("ciapp.testing.child",)
    return [
        str(one)
        for one in house.imports
        if is_in(one.importer, child)
        and not (one.relative and is_in(one.imported, child))
        and not (not one.relative and one.imported.partition(".")[0] in sys.stdlib_module_names)
    ]


def too_long(house: House) -> dict[str, int]:
    lengths = {name: len(file.read_bytes().splitlines()) for name, file in house.files.items()}
    return {name: length for name, length in lengths.items() if length > LINES}


class TestLayout(unittest.TestCase):
    house = House(ROOT)

    def test_every_module_has_a_place_in_the_drawing(self):
        self.assertEqual([], [name for name in self.house.files if place_of(name) is None])

    def test_imports_point_down(self):
        self.assertEqual([], upward(self.house))

    def test_imports_never_run_in_a_circle(self):
        self.assertEqual([], cycle(self.house))

    def test_each_outside_thing_has_one_door(self):
        self.assertEqual([], past_the_door(self.house))

    def test_imports_inside_functions_are_those_that_have_a_reason(self):
        found = deferred(self.house)

        self.assertEqual(set(), found - set(DEFERRED), "without a reason")
        self.assertEqual(set(), (set(DEFERRED) & set(self.house.files)) - found, "a reason too many")

    def test_the_child_needs_nothing_but_the_standard_library(self):
        self.assertEqual([], not_for_the_child(self.house))

    def test_no_module_is_too_long(self):
        self.assertEqual({}, too_long(self.house))


class TestTheChecks(unittest.TestCase):
    """Each check finds what it looks for, in a house that has it."""

    def build(self, **files: str) -> House:
        """A house of files; "results__store" stands for ciapp/results/store.py."""
        root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (root / "ciapp").mkdir()
        (root / "ciapp/__init__.py").touch()
        for name, source in files.items():
            file = root / "ciapp" / (name.replace("__", "/") + ".py")
            file.parent.mkdir(exist_ok=True, parents=True)
            file.write_text(textwrap.dedent(source))
        return House(root)

    def test_an_import_of_a_higher_storey_points_up_however_it_is_written(self):
        for source in (
            "import ciapp.tasks",
            "from ciapp.tasks import run_commit",
            "from ciapp import tasks",
            "from .. import tasks",
            "from ..tasks import run_commit",
            "def late():\n    from ciapp import tasks",
            "if TYPE_CHECKING:\n    import ciapp.tasks",
        ):
            with self.subTest(source):
                house = self.build(results__store=source, tasks="")
                self.assertEqual(["ciapp.results.store imports ciapp.tasks"], upward(house))

    def test_rooms_of_one_storey_do_not_know_each_other(self):
        house = self.build(outlets__text="import ciapp.testing.project", testing__project="")

        self.assertEqual(["ciapp.outlets.text imports ciapp.testing.project"], upward(house))

    def test_a_room_may_import_itself_and_what_is_below(self):
        house = self.build(
            outlets__text="from . import names\nfrom ciapp import __version__, errors, results",
            outlets__names="",
            errors="",
            results__store="",
        )

        self.assertEqual([], upward(house))

    def test_a_module_without_a_place_is_noticed(self):
        self.assertIsNone(place_of("ciapp.utilities"))
        self.assertIsNone(place_of("ciapp.gitlab"))

    def test_a_circle_is_noticed_though_one_of_its_imports_is_deferred(self):
        house = self.build(
            results__a="from ciapp.results import b",
            results__b="def late():\n    import ciapp.results.a",
        )

        self.assertLessEqual({"ciapp.results.a", "ciapp.results.b"}, set(cycle(house)))

    def test_a_library_is_kept_behind_its_door(self):
        house = self.build(
            git="from git.cmd import Git",
            results__store="import sqlalchemy.exc",
            cli="import click\nfrom sqlalchemy import select\nfrom ciapp import git",
            celery="import celery",
        )

        self.assertEqual(["ciapp.cli imports sqlalchemy"], past_the_door(house))

    def test_an_import_in_a_function_is_deferred_and_one_in_a_class_or_condition_is_not(self):
        house = self.build(
            a="class A:\n    def method(self):\n        import json",
            b="class B:\n    import json",
            c="if True:\n    import json",
        )

        self.assertEqual({"ciapp.a"}, deferred(house))

    def test_the_child_is_held_to_the_standard_library_and_to_its_own_folder(self):
        house = self.build(
            testing__child__main="""
                import json
                import msgspec
                from . import channel
                from ... import errors
                from ciapp.testing.child import channel
            """,
            testing__child__channel="",
            errors="",
        )

        self.assertEqual(
            [
                "ciapp.testing.child.main imports msgspec",
                "ciapp.testing.child.main imports ciapp.errors",
                "ciapp.testing.child.main imports ciapp.testing.child.channel",
            ],
            not_for_the_child(house),
        )

    def test_a_long_module_is_noticed(self):
        house = self.build(errors="\n" * LINES, git="\n" * (LINES + 1))

        self.assertEqual({"ciapp.git": LINES + 1}, too_long(house))
