"""The README's commands and settings are the program's."""

from __future__ import annotations

import re
import tomllib
import unittest
from pathlib import Path

import click
import msgspec

from ciapp.cli import cli
from ciapp.project import Project
from ciapp.results.report import Report
from ciapp.settings import Settings, variable_names

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")


def all_commands(group: click.Group, prefix: str = "ciapp") -> dict[str, click.Command]:
    """Each command by the words that call it; groups left out."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= all_commands(command, f"{prefix} {name}")
        else:
            found[f"{prefix} {name}"] = command
    return found


def commands_shown(text: str) -> set[str]:
    """Commands of ciapp's in code: where a line or a span begins, behind a folder, "&&" or "with:"."""
    blocks = re.findall(r"^ *```[a-z]*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    place = re.compile(r"(?:^ *|[\w.]/|&& |with: )(ciapp (?:hook )?[a-z-]+)(?= |$)", re.MULTILINE)
    return {command for code in (*blocks, *spans) for command in place.findall(code)}


class TestReadme(unittest.TestCase):
    def test_its_command_table_is_the_programs(self):
        rows = dict(re.findall(r"^\| `(ciapp [^`]*)` \| (.*) \|$", README, re.MULTILINE))
        told = {re.match(r"ciapp(?: [a-z]+)+", usage)[0]: usage for usage in rows}
        commands = all_commands(cli)
        self.assertEqual(set(commands), set(told))
        for name, command in commands.items():
            options = {
                option
                for parameter in command.params
                if isinstance(parameter, click.Option) and not parameter.hidden
                for option in parameter.opts
                if option.startswith("--")
            }
            self.assertEqual(options, set(re.findall(r"--[a-z-]+", told[name])), name)

    def test_every_ciapp_command_that_it_shows_exists(self):
        shown = commands_shown(README)
        self.assertGreater(len(shown), 20)
        self.assertEqual(set(), shown - all_commands(cli).keys())

    def test_a_command_that_it_invents_is_found_wherever_a_command_stands(self):
        for text in (
            "say `ciapp frobnicate team`",
            "```sh\nciapp frobnicate\n```",
            "```\nremote: ciapp: recorded; follow with: ciapp frobnicate team\n```",
            "`make && .venv/bin/ciapp frobnicate`",
        ):
            self.assertEqual({"ciapp frobnicate"}, commands_shown(text), text)
        for text in ("`CREATE USER ciapp PASSWORD`", "`celery -A ciapp flower`", "in ciapp what is"):
            self.assertEqual(set(), commands_shown(text), text)

    def test_its_settings_table_is_the_programs(self):
        rows = re.findall(r"^\| `([a-z_.]+)` \| `([^`]*)` \| `(CIAPP_[A-Z_]+)` \|$", README, re.MULTILINE)
        wanted = []
        for variable, path in variable_names().items():
            holder = Settings() if len(path) == 1 else getattr(Settings(), path[0])
            default = getattr(holder, path[-1])
            text = f'"{default}"' if isinstance(default, str) else str(default)
            wanted.append((".".join(path), text, variable))
        self.assertEqual(wanted, rows)

    def test_its_example_of_a_commits_configuration_is_accepted(self):
        [example] = [
            block for block in re.findall(r"```toml\n(.*?)```", README, re.DOTALL) if "[unittest]" in block
        ]
        project = msgspec.convert(tomllib.loads(example), Project)
        self.assertEqual("tests", project.unittest.start)

    def test_its_server_settings_are_accepted(self):
        blocks = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
        [example] = [block for block in blocks if "broker_url" in block]
        settings = msgspec.convert(tomllib.loads(example), Settings)
        self.assertEqual(["team"], list(settings.repository))

    def test_its_report_document_has_the_reports_fields(self):
        [example] = re.findall(r"`ciapp report --json`.*?```json\n(.*?)```", README, re.DOTALL)
        document = msgspec.json.decode(example.replace("…", "2026-11-23T05:00:00Z"))
        fields = {field.name for field in msgspec.structs.fields(Report)}
        self.assertEqual(fields, set(document))
        msgspec.convert(document, Report)


if __name__ == "__main__":
    unittest.main()
