"""tests/drill/complaints.py on what services' logs hold."""

from __future__ import annotations

import unittest

from tests.drill.complaints import complaints

TIME = "2026-11-28T19:26:04Z"
TRACE = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n'
CHAINED = (
    f"{TRACE}ValueError: a\n\nDuring handling of the above exception, another exception occurred:\n\n{TRACE}"
)


class TestComplaints(unittest.TestCase):
    def find(self, *lines: str) -> list[str]:
        return list(
            complaints("worker.log", "\n".join([f"{TIME} INFO    push recorded repo=team", *lines, ""]))
        )

    def test_what_goes_well_is_no_complaint(self) -> None:
        self.assertEqual([], self.find(f"{TIME} WARNING ledger away error=refused", "worker: Warm shutdown"))

    def test_what_celery_says_of_a_fault_of_the_drill_is_none(self) -> None:
        self.assertEqual(
            [],
            self.find(
                f"{TIME} CRITICAL Couldn't ack 4, reason:BrokenPipeError(32, 'Broken pipe')",
                f"{CHAINED}BrokenPipeError: [Errno 32] Broken pipe",
                f"{TIME} CRITICAL Couldn't ack '4bae9808-3bb5', reason:ConnectionError('closed')",
                f"{CHAINED}redis.exceptions.ConnectionError: the connection of this channel is closed",
                f"{TIME} ERROR   Error on stopping Hub: BrokenPipeError(32, 'Broken pipe')",
                f"{TRACE}BrokenPipeError: [Errno 32] Broken pipe",
                f"{TIME} ERROR   Error on stopping Hub: RecoverableConnectionError(None, 'cut', None, '')",
                f"{TRACE}amqp.exceptions.RecoverableConnectionError: Socket was disconnected",
                f"{TIME} ERROR   Error cleaning up after event loop: BrokenPipeError(32, 'Broken pipe')",
                f"{TRACE}BrokenPipeError: [Errno 32] Broken pipe",
                f"{TIME} ERROR   Task handler raised error: WorkerLostError('Worker exited prematurely')",
                f'{TRACE}billiard.einfo.RemoteTraceback: \n"""\n{TRACE}WorkerLostError: 9\n"""',
            ),
        )

    def test_any_other_traceback_is_one(self) -> None:
        [said] = self.find(f"{TIME} ERROR   repository cannot be served repo=team", f"{TRACE}KeyError: 'x'")
        self.assertEqual(
            "worker.log has a traceback: ERROR   repository cannot be served repo=team … KeyError: 'x'", said
        )

    def test_a_line_of_flowers_is_told_from_those_around_it(self) -> None:
        stamp = "[E 261129 07:15:01 mixins:161]"
        [said] = self.find(f"{stamp} Away", f"{stamp} Lost", f"{TRACE}KeyError: 'x'", f"{stamp} Back")
        self.assertEqual("worker.log has a traceback: Lost … KeyError: 'x'", said)

    def test_the_broker_alone_explains_what_a_worker_could_not_clean_up(self) -> None:
        head = f"{TIME} ERROR   Error cleaning up after event loop: KeyError('x')"
        [said] = self.find(head, f"{TRACE}KeyError: 'x'")
        self.assertIn("KeyError", said)

    def test_one_that_was_printed_behind_an_expected_one_is_one(self) -> None:
        head = f"{TIME} CRITICAL Couldn't ack 4, reason:BrokenPipeError(32, 'Broken pipe')"
        [said] = self.find(head, f"{TRACE}BrokenPipeError: [Errno 32] Broken pipe", f"{TRACE}KeyError: 'x'")
        self.assertIn("KeyError", said)

    def test_faults_of_our_own_and_threads_that_die_are_never_expected(self) -> None:
        for line in ("ciapp: this is a fault of ciapp's own (KeyError: 1); …", "Exception in thread lease:"):
            [said] = self.find(line)
            self.assertEqual(f"worker.log tells of a fault: {line}", said)


if __name__ == "__main__":
    unittest.main()
