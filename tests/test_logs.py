"""How often one says what goes on for long."""

from __future__ import annotations

import logging
import unittest

from ciapp.logs import SAY_EVERY_S, Absence


class TestAbsence(unittest.TestCase):
    def setUp(self) -> None:
        self.now_s = 0.0
        self.absence = Absence(logging.getLogger("ciapp.test"), lambda: self.now_s)

    def test_it_is_said_at_once_then_once_in_a_while_and_when_it_ends(self) -> None:
        with self.assertLogs("ciapp.test", "INFO") as logged:
            self.absence.end()
            for _ in range(int(2 * SAY_EVERY_S)):
                self.absence.note("broker", ValueError("gone; start it"))
                self.now_s += 1
            self.absence.end()
            self.absence.end()
        said = ["broker away", "broker still away", "broker back"]
        self.assertEqual(said, [record.message for record in logged.records])
        self.assertEqual("gone; start it", logged.records[0].error)

    def test_another_service_is_said_at_once(self) -> None:
        with self.assertLogs("ciapp.test", "INFO") as logged:
            for service in ("broker", "broker", "ledger"):
                self.absence.note(service, ValueError())
        self.assertEqual(["broker away", "ledger away"], [record.message for record in logged.records])


if __name__ == "__main__":
    unittest.main()
