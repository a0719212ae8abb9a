"""TOML of commits: the lines of keys, what is refused, and how long the worst takes."""

from __future__ import annotations

import textwrap
import time
import tomllib
import unittest

from ciapp.errors import ProjectError
from ciapp.testing.toml import line_of, parse_toml

LARGE = 1 << 20  #: as large as a commit's configuration may be
FAST_S = 10.0  #: a second on a machine that is not busy


TEXT = textwrap.dedent(
    '''\
    # title = 1
    title = "a # b = c"  # [owner]
    text = """
    owner = 1
    [owner]
    """"
    list = [
        { name = "list" },
        [ 1, 2 ],  # ]
    ]
    raw = \'\'\'[table]
    [owner]\'\'\'

    [ owner . "first name" ]\r
    age.'in years' = 1.5
    empty = ""
    inline = { deep = { deeper = 1 } }
    [[items]]
    name = 1
    [[items]]
    other = '\\'
    [last]
    number = 1979-05-27T07:32:00Z
    '''
)


class TestLineOf(unittest.TestCase):
    def test_each_key_stands_where_it_is_written(self):
        tomllib.loads(TEXT)
        for path, line in {
            ("title",): 2,
            ("text",): 3,
            ("list",): 7,
            ("raw",): 11,
            ("owner",): 14,
            ("owner", "first name"): 14,
            ("owner", "first name", "age"): 15,
            ("owner", "first name", "age", "in years"): 15,
            ("owner", "first name", "empty"): 16,
            ("items", "name"): 19,
            ("items", "other"): 21,
            ("last", "number"): 23,
        }.items():
            with self.subTest(path):
                self.assertEqual(line, line_of(TEXT, path))

    def test_what_has_no_line_of_its_own_stands_where_its_holder_does(self):
        self.assertEqual(17, line_of(TEXT, ("owner", "first name", "inline", "deep", "deeper")))
        self.assertEqual(7, line_of(TEXT, ("list", "[3]")))
        self.assertEqual(22, line_of(TEXT, ("last", "missing")))
        self.assertIsNone(line_of(TEXT, ("missing",)))
        self.assertIsNone(line_of("", ("missing",)))


class TestParseToml(unittest.TestCase):
    def refused(self, text: str, sentence: str) -> None:
        with self.assertRaises(ProjectError) as caught:
            parse_toml("x.toml", text)
        self.assertEqual(sentence, str(caught.exception))

    def test_tables_are_read(self):
        self.assertEqual({"a": {"b": {"c": [1.5]}}}, parse_toml("x.toml", "[a.b]\nc = [1.5]"))

    def test_what_is_no_toml_is_said_with_its_line(self):
        self.refused("a = 1\nb = ]", "x.toml:2: not valid TOML: Invalid value (column 5)")
        self.refused("a = " + "[" * 50_000, "x.toml is nested too deep to be read")

    def test_a_key_of_many_parts_cannot_hold_us_up(self):
        for text in ("a." * 5_000 + "a = 1", '"a b" . ' * 5_000 + "a = 1", f"[{'a.' * 5_000}a]"):
            with self.subTest(text[:20]):
                said = "lines with thousands of dots are not read; write them as several lines"
                self.refused(f"\n{text}", f"x.toml:2: {said}")
        started = time.process_time()
        for parts in (4_000, 400, 40):
            lines = 4_000**2 // parts**2
            text = "\n".join(f"k{n}{'.a' * (parts - 1)} = 1" for n in range(min(lines, LARGE // parts // 2)))
            parse_toml("x.toml", text)
        self.assertLess(time.process_time() - started, FAST_S)

    def test_many_versions_on_one_line_are_no_key(self):
        pins = ", ".join(f'"package{number}==1.{number}.0"' for number in range(1_500))
        self.assertEqual(1_500, len(parse_toml("x.toml", f"dependencies = [{pins}]")["dependencies"]))


if __name__ == "__main__":
    unittest.main()
