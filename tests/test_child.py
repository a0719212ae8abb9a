"""The child, run for real under every interpreter of this machine: what becomes of each kind of outcome."""

from __future__ import annotations

from tests.support.samples import add_sample_tests

OUTCOMES = (
    "passes",
    "fails_and_errors",
    "skips_everywhere",
    "expects_failures",
    "breaks_expected_failures",
    "breaks_async_tests",
    "loads_doctests",
    "fails_in_subtests",
    "breaks_fixtures",
    "breaks_cleanups",
    "skips_its_tear_down",
    "exits_in_fixtures",
    "cannot_be_imported",
    "load_tests_raises",
    "load_tests_returns_a_list",
    "shares_ids",
    "makes_tests_while_running",
    "stops_its_result",
    "exits_in_a_test",
    "raises_keyboard_interrupt",
    "has_no_tests",
    "has_no_start_directory",
    "hides_tests",
    "lost_a_test",
    "changes_the_default_loader",
    "makes_skips_fail",
    "fails_in_its_runner",
    "cannot_make_its_result",
    "changes_its_result_while_running",
    "names_modules_like_ours",
    "raises_odd_exceptions",
    "has_odd_ids",
    "spawns_processes",
)

add_sample_tests(globals(), OUTCOMES)
