"""The supervisor: what a run survives, under every interpreter of this machine."""

from __future__ import annotations

from tests.support.samples import add_sample_tests

SURVIVED = (
    "exits_zero_mid_test",
    "exits_zero_after_a_failure",
    "exits_zero_between_tests",
    "exits_at_import",
    "crashes",
    "crashes_in_fixtures",
    "crashes_often",
    "hangs",
    "hangs_at_import",
    "outlasts_the_run",
    "runs_a_runner_inside",
    "forks_into_the_suite",
    "floods_its_output",
    "writes_odd_bytes",
    "closes_its_output",
    "closes_the_channel",
    "leaves_a_thread",
    "leaves_processes",
    "crashes_at_exit",
    "changes_the_world",
    "deletes_its_checkout",
)

add_sample_tests(globals(), SURVIVED)
