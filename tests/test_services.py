"""A service that ends is started again, the later the more often it does."""

from __future__ import annotations

import os
import unittest
from types import SimpleNamespace
from unittest import mock

from ciapp.services import LONGEST_PAUSE_S, RESTART_AFTER_S, STAYS_S, Service


class TestRestarts(unittest.TestCase):
    def setUp(self) -> None:
        self.now_s = 1000.0
        clock = SimpleNamespace(monotonic=lambda: self.now_s)
        patch = mock.patch("ciapp.services.time", clock)
        patch.start()
        self.addCleanup(patch.stop)
        self.service = Service("worker", [], os.environ, None)
        self.service._command = ["true"]

    def starts_after(self) -> float:
        """Seconds from its end until it is started again; it ends at once."""
        process = self.service._process
        assert process is not None
        process.wait()
        with self.assertLogs("ciapp.services", "ERROR"):
            self.service.keep_running()
        ended_s = self.now_s
        while self.service._process is None:
            self.now_s += 1
            self.service.keep_running()
        return self.now_s - ended_s

    def test_pauses_grow_until_it_stays(self) -> None:
        self.service.keep_running()
        pauses = [self.starts_after() for _ in range(7)]
        self.assertEqual([RESTART_AFTER_S * 2**n for n in range(5)], pauses[:5])
        self.assertEqual([LONGEST_PAUSE_S] * 2, pauses[5:])
        self.now_s += STAYS_S + 1
        self.assertEqual(RESTART_AFTER_S, self.starts_after())


if __name__ == "__main__":
    unittest.main()
