"""One line per commit: what it says, how wide it is, and that it stays one line."""

import re
import unicodedata
import unittest

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ciapp.outlets.terminal import display_width
from ciapp.outlets.text import LogLine, render_log_line
from ciapp.results.report import State, Status

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)


class TestLogLine(unittest.TestCase):
    finished = LogLine(
        commit="d4e5f6a1b2c3" + "0" * 28,
        subject="Teach the adder to add",
        state=State.FINISHED,
        status=Status.FAILED,
        counts={"passed": 12, "failed": 1},
        duration_s=12.4,
    )

    def test_a_finished_commit_shows_status_counts_duration_and_subject(self):
        self.assertEqual(
            "d4e5f6a1b2c3  failed    12 passed, 1 failed   12.4s  Teach the adder to add",
            render_log_line(self.finished),
        )

    def test_its_note_stands_before_the_subject(self):
        line = msgspec.structs.replace(self.finished, note="attempt 2")

        self.assertTrue(render_log_line(line).endswith("  [attempt 2] Teach the adder to add"))

    def test_any_other_commit_shows_its_note_in_place_of_a_status(self):
        for note in ("queued", "running 34/120, 1 failed", "not tested", "deferred behind d4e5f6"):
            with self.subTest(note=note):
                line = LogLine(commit="a" * 40, subject="Add", note=note)
                self.assertEqual(f"aaaaaaaaaaaa  {note:37}  Add", render_log_line(line))

    def test_without_a_note_the_state_speaks(self):
        queued = LogLine(commit="a" * 40, subject="Add", state=State.QUEUED)
        unknown = LogLine(commit="a" * 40, subject="Add")

        self.assertIn("  queued  ", render_log_line(queued))
        self.assertIn("  not tested  ", render_log_line(unknown))

    def test_subjects_of_lines_with_few_tests_stand_below_each_other(self):
        columns = {
            render_log_line(line).index("Teach")
            for line in (
                self.finished,
                msgspec.structs.replace(self.finished, status=Status.PASSED, counts={}, duration_s=None),
                msgspec.structs.replace(self.finished, status=None, state=State.RUNNING, note="running 3/12"),
            )
        }

        self.assertEqual(1, len(columns))

    def test_the_subject_is_cut_to_the_width(self):
        self.assertEqual(
            "d4e5f6a1b2c3  failed    12 passed, 1 failed   12.4s  Teach…",
            render_log_line(self.finished, width=59),
        )

    def test_colour_changes_nothing_but_the_colour(self):
        for width in (1, 16, 30, 60, 0):
            for status in Status:
                with self.subTest(width=width, status=status):
                    line = msgspec.structs.replace(self.finished, status=status)
                    colored = render_log_line(line, width=width, color=True)
                    self.assertEqual(
                        render_log_line(line, width=width), re.sub(r"\x1b\[[0-9;]*m", "", colored)
                    )
        self.assertIn("  \x1b[31mfailed\x1b[0m  ", render_log_line(self.finished, color=True))

    def test_a_waiting_commit_has_no_colour(self):
        line = LogLine(commit="a" * 40, subject="Add", state=State.QUEUED)

        self.assertNotIn("\x1b", render_log_line(line, color=True))

    @given(ANY_TEXT, st.integers(min_value=1, max_value=100), st.sampled_from([*Status, None]))
    def test_a_hostile_line_is_one_line_that_fits(self, hostile, width, status):
        line = LogLine(
            commit=hostile,
            subject=hostile,
            status=status,
            counts={hostile: 3},
            duration_s=0.1,
            note=hostile,
        )

        shown = render_log_line(line, width=width)

        self.assertLessEqual(display_width(shown), width)
        self.assertFalse([c for c in shown if unicodedata.category(c) in {"Cc", "Cs"}])
