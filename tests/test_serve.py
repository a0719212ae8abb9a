"""One dispatcher per host: who waits for whom."""

from __future__ import annotations

import fcntl
import threading
import time
import unittest
from pathlib import Path
from typing import IO
from unittest import mock

from ciapp.errors import UsageError
from ciapp.intake import serve
from ciapp.intake.serve import FOR_GOOD, ONCE
from tests.support.git_repositories import new_folder

PATIENCE_S = 0.1


class TestLock(unittest.TestCase):
    def setUp(self) -> None:
        self.state = new_folder(self)
        self.enterContext(mock.patch.object(serve, "LOCK_WITHIN_S", PATIENCE_S))

    def hold(self, text: str) -> IO[str]:
        """The lock, as another process has it."""
        holder = (self.state / "dispatcher.lock").open("a")
        self.addCleanup(holder.close)
        fcntl.flock(holder, fcntl.LOCK_EX)
        holder.write(text)
        holder.flush()
        return holder

    def test_one_that_a_hook_has_started_is_waited_for_however_long_it_takes(self) -> None:
        holder = self.hold(ONCE)
        taken: list[IO[str] | None] = []
        waiting = threading.Thread(target=lambda: taken.append(serve._take_lock(self.state, False)))
        with self.assertLogs("ciapp", "WARNING") as logged:
            waiting.start()
            time.sleep(5 * PATIENCE_S)  # so long it must not have given up
            self.assertEqual([], taken)
            self.assertTrue(waiting.is_alive())
            holder.close()
            waiting.join(60)
        self.assertEqual(1, len(logged.records), logged.output)

        [lock] = taken
        assert lock is not None
        self.addCleanup(lock.close)
        self.assertEqual(FOR_GOOD, Path(lock.name).read_text())

    def test_one_that_runs_for_good_is_not(self) -> None:
        self.hold(FOR_GOOD)
        with self.assertRaisesRegex(UsageError, "^a dispatcher runs already in .*; stop it first$"):
            serve._take_lock(self.state, False)
        self.assertIsNone(serve._take_lock(self.state, True))

    def test_one_that_was_killed_keeps_nobody(self) -> None:
        self.hold(FOR_GOOD).close()
        lock = serve._take_lock(self.state, True)
        assert lock is not None
        self.addCleanup(lock.close)
        self.assertEqual(ONCE, Path(lock.name).read_text())


if __name__ == "__main__":
    unittest.main()
