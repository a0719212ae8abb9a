"""All of ciapp in one command: a repository, its hook, a push, a worker, a red report, the fix, a green one.

Everything happens in a temporary folder, on the embedded default whatever the settings of this machine say,
and is gone afterwards.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from ciapp.errors import CiError, SandboxError
from ciapp.git import WorkTree
from ciapp.intake.register import install_and_register
from ciapp.outlets.text import render_report
from ciapp.progress import watch_runs
from ciapp.results.database import Database
from ciapp.results.pushes import find_repository
from ciapp.results.report import Report, Status
from ciapp.results.runs import find_runs
from ciapp.results.store import report_on
from ciapp.services import Services
from ciapp.settings import load_settings
from ciapp.testing.sandbox import SandboxSetting, check_level

AUTHOR = ("ciapp demo", "demo@localhost")
RESULT_WITHIN_S = 60.0
FILES = {
    "calc.py": """\
        def add(a, b):
            return a + b


        def divide(a, b):
            return a // b
        """,
    "tests/test_calc.py": """\
        import unittest

        import calc


        class TestCalc(unittest.TestCase):
            def test_add(self):
                self.assertEqual(calc.add(2, 3), 5)

            def test_divide(self):
                self.assertEqual(calc.divide(1, 2), 0.5)


        if __name__ == "__main__":
            unittest.main()
        """,
}
FIX = ("calc.py", "return a // b", "return a / b")


def run_demo(*, keep: bool) -> None:
    """Run it and print it. Raises CiError when a step does not end as it must."""
    folder = Path(tempfile.mkdtemp(prefix="ciapp-demo-"))
    # Tests run under an identity of their own, which must be able to pass through.
    folder.chmod(0o711)
    try:
        with _embedded_settings(folder) as environment:
            _show(folder, environment)
    finally:
        if keep:
            click.echo(f"kept: {folder}")
        else:
            shutil.rmtree(folder)


def _show(folder: Path, environment: Mapping[str, str]) -> None:
    settings = load_settings()
    database = Database(settings.database)
    database.migrate()
    bare, work = folder / "team.git", folder / "team"
    WorkTree(folder, *AUTHOR).run("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    WorkTree(folder, *AUTHOR).run("clone", "--quiet", str(bare), str(work))
    clone = WorkTree(work, *AUTHOR)
    port = _free_port()

    _step("a bare repository, with the hook installed")
    for line in install_and_register(settings, database, bare):
        click.echo(f"  {line}")

    _step("dispatcher, worker and monitor on this machine; nothing else is needed")
    services = Services(concurrency=1, port=port, environment=environment, log=folder / "services.log")
    services.keep_running()
    try:
        click.echo(f"  Flower shows them at http://127.0.0.1:{port}/ while the demo runs")
        for name, text in FILES.items():
            (work / name).parent.mkdir(exist_ok=True)
            (work / name).write_text(textwrap.dedent(text))
        _step("git push: a small project, one test of two fails")
        first = _push(clone, "Add a calculator")
        _expect(_result(database, first), Status.FAILED)

        _step("git push: the fix")
        name, wrong, right = FIX
        (work / name).write_text((work / name).read_text().replace(wrong, right))
        second = _push(clone, "Divide without rounding")
        _expect(_result(database, second), Status.PASSED)
    finally:
        services.stop()
    _step("a repository of your own")
    # By the name that works in the shell that this was started from.
    ciapp = "ciapp" if shutil.which("ciapp") else sys.argv[0]
    click.echo(f"  {ciapp} hook install path/to/team.git --name team")
    click.echo(
        f"  {ciapp} up                  # dispatcher, worker and Flower; pushes are tested from now on"
    )
    click.echo(f"  {ciapp} wait team HEAD      # then: {ciapp} log team, {ciapp} report team HEAD")


def _push(clone: WorkTree, subject: str) -> str:
    clone.run("add", "--all")
    clone.run("commit", "--quiet", "--message", subject)
    _, said = clone.run("push", "--quiet", "origin", "HEAD:main")
    for line in said.splitlines():
        click.echo(f"  {line.rstrip()}")
    return clone.run("rev-parse", "HEAD")[0]


def _result(database: Database, commit: str) -> Report:
    repository = find_repository(database, "team")
    deadline = time.monotonic() + RESULT_WITHIN_S
    while not (runs := find_runs(database, repository.name, [commit])):
        if time.monotonic() > deadline:
            raise CiError(f"commit {commit[:12]} did not reach the ledger; run `ciapp doctor`")
        time.sleep(0.05)
    found = report_on(database, watch_runs(database, repository, runs, deadline)[0])
    if found is None:
        raise CiError(f"commit {commit[:12]} has no report; run `ciapp doctor`")
    click.echo()
    click.echo(textwrap.indent(render_report(found), "  "), nl=False)
    return found


def _expect(report: Report, status: Status) -> None:
    if report.status is not status:
        said = f": {report.reason}" if report.reason else ""
        raise CiError(f"the demo's commit is {report.status}, not {status}{said}; run `ciapp doctor`")


def _step(text: str) -> None:
    click.echo()
    click.echo(click.style(f"== {text}", bold=sys.stdout.isatty()))


@contextmanager
def _embedded_settings(folder: Path) -> Iterator[dict[str, str]]:
    """Settings of the demo's own, for this process and for those it starts."""
    before = {name: value for name, value in os.environ.items() if name.startswith("CIAPP_")}
    for name in before:
        del os.environ[name]
    config = folder / "ciapp.toml"
    config.write_text(f'state_dir = "{folder / "state"}"\n')
    os.environ["CIAPP_CONFIG"] = str(config)
    # Who starts it says at what level, as everywhere.
    os.environ["CIAPP_SANDBOX"] = before.get("CIAPP_SANDBOX") or _level(folder)
    try:
        yield dict(os.environ)
    finally:
        del os.environ["CIAPP_CONFIG"], os.environ["CIAPP_SANDBOX"]
        os.environ.update(before)


def _level(folder: Path) -> SandboxSetting:
    """As everywhere; but where tests could only be root, the demo's own commits may be that as well."""
    try:
        check_level("auto", folder)
    except SandboxError:
        click.echo("There is no bubblewrap here, so the demo tests its own commits as root; see README.")
        return "off-as-root"
    return "auto"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
