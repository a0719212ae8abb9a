"""Text of a commit on a terminal: nothing of it acts, all of it can be read."""

import unicodedata
import unittest

from hypothesis import given
from hypothesis import strategies as st

from ciapp.outlets.terminal import (
    Color,
    cut_to_width,
    display_width,
    escape_line,
    escape_text,
    format_duration,
    pad_to_width,
    paint,
)

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # surrogates too


class TestEscaping(unittest.TestCase):
    def test_a_terminal_gets_no_order_from_hostile_text(self):
        for hostile, shown in {
            "\x1b[2J\x1b]0;owned\x07": r"\x1b[2J\x1b]0;owned\x07",
            "\x9b31m": r"\x9b31m",
            "pass\rFAIL": r"pass\rFAIL",
            "fail\x08\x08\x08\x08pass": r"fail\x08\x08\x08\x08pass",
            "nul\x00 del\x7f": r"nul\x00 del\x7f",
            "admin\u202etxt.exe": r"admin\u202etxt.exe",
            "\u2066isolated\u2069": r"\u2066isolated\u2069",
            "in\u200bvisible\ufeff\u00ad": r"in\u200bvisible\ufeff\xad",
            "lone \udcff surrogate": r"lone \udcff surrogate",
            "tagged\U000e0041": r"tagged\U000e0041",
            "no character \uffff": r"no character \uffff",
            "line\u2028paragraph\u2029": r"line\u2028paragraph\u2029",
        }.items():
            with self.subTest(shown=shown):
                self.assertEqual(shown, escape_text(hostile))
                self.assertEqual(shown, escape_line(hostile))

    def test_newlines_and_tabs_stay_where_many_lines_are_expected_and_only_there(self):
        self.assertEqual("a\n\tb", escape_text("a\n\tb"))
        self.assertEqual(r"a\n\tb", escape_line("a\n\tb"))

    def test_scripts_emoji_and_joiners_stay_as_they_are(self):
        for text in ("Füße", "日本語", "می\u200cخواهم", "👩\u200d💻", "né\u0301e", "\U0001fae8"):
            with self.subTest(text=text):
                self.assertEqual(text, escape_line(text))

    @given(ANY_TEXT)
    def test_no_control_bidi_or_surrogate_character_survives(self, text):
        for escaped, allowed in ((escape_text(text), "\n\t"), (escape_line(text), "")):
            left = [c for c in escaped if unicodedata.category(c) in {"Cc", "Cs"} or c in BIDI]
            self.assertEqual([], [character for character in left if character not in allowed])
            escaped.encode("utf-8")

    @given(ANY_TEXT)
    def test_escaping_twice_is_escaping_once(self, text):
        self.assertEqual(escape_text(text), escape_text(escape_text(text)))
        self.assertEqual(escape_line(text), escape_line(escape_line(text)))

    @given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
    def test_plain_ascii_is_unchanged(self, text):
        self.assertEqual(text, escape_text(text))
        self.assertEqual(text, escape_line(text))


class TestWidth(unittest.TestCase):
    def test_wide_characters_take_two_columns_and_combining_ones_none(self):
        self.assertEqual(3, display_width("abc"))
        self.assertEqual(4, display_width("日本"))
        self.assertEqual(3, display_width("ne\u0301e"))

    def test_text_that_fits_is_not_cut(self):
        self.assertEqual("日本", cut_to_width("日本", 4))

    def test_a_wide_character_is_never_cut_in_half(self):
        self.assertEqual("日…", cut_to_width("日本語", 4))
        self.assertEqual("日本…", cut_to_width("日本語です", 5))

    @given(st.text(), st.integers(min_value=-3, max_value=40))
    def test_cut_text_fits(self, text, width):
        cut = cut_to_width(escape_line(text), width)

        self.assertLessEqual(display_width(cut), max(width, 1))

    def test_padding_counts_columns(self):
        self.assertEqual("日本  |", pad_to_width("日本", 6) + "|")
        self.assertEqual("too long", pad_to_width("too long", 3))


class TestDuration(unittest.TestCase):
    def test_each_unit_takes_over_where_the_smaller_one_would_overflow(self):
        for seconds, shown in {
            0.0: "0.000s",
            0.0124: "0.012s",
            0.9996: "1.0s",
            59.94: "59.9s",
            59.96: "1m00s",
            125.2: "2m05s",
            3599.4: "59m59s",
            3599.6: "1h00m",
            11220.0: "3h07m",
        }.items():
            with self.subTest(seconds=seconds):
                self.assertEqual(shown, format_duration(seconds))


class TestColor(unittest.TestCase):
    def test_paint_ends_the_colour_it_begins(self):
        self.assertEqual("\x1b[31mfailed\x1b[0m", paint("failed", Color.RED))
