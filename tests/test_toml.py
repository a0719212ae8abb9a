"""TOML of commits: what is refused, and how long the worst takes."""

from __future__ import annotations

import time
import unittest

from ciapp.errors import ProjectError
from ciapp.testing.toml import parse_toml

LARGE = 1 << 20  #: as large as a commit's configuration may be
FAST_S = 10.0  #: a second on a machine that is not busy


class TestParseToml(unittest.TestCase):
    def refused(self, text: str, sentence: str) -> None:
        with self.assertRaises(ProjectError) as caught:
            parse_toml("x.toml", text)
        self.assertEqual(sentence, str(caught.exception))

    def test_tables_are_read(self):
        self.assertEqual({"a": {"b": {"c": [1.5]}}}, parse_toml("x.toml", "[a.b]\nc = [1.5]"))

    def test_what_is_no_toml_is_said_with_its_line(self):
        self.refused("a = 1\nb = ]", "x.toml is not valid TOML: Invalid value (at line 2, column 5)")
        self.refused("a = " + "[" * 50_000, "x.toml is nested too deep to be read")

    def test_a_key_of_many_parts_cannot_hold_us_up(self):
        for text in ("a." * 5_000 + "a = 1", '"a b" . ' * 5_000 + "a = 1", f"[{'a.' * 5_000}a]"):
            with self.subTest(text[:20]):
                self.refused(text, "x.toml has lines with thousands of dots; write them as several lines")
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
