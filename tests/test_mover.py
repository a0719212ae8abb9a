from __future__ import annotations

import os
import signal
import time
import unittest
from unittest.mock import patch

from ciapp.settings import Limits
from ciapp.testing.mover import KEPT, Inodes, Mover
from ciapp.testing.processes import list_serving
from tests.support.sandboxes import Place, needs_bubblewrap, run_python


@needs_bubblewrap
class TestMover(unittest.TestCase):
    """What moves a slot's work tree is kept for as long as it serves, and no longer."""

    def setUp(self) -> None:
        self.place = Place(self)
        self.one = self.place.origin.commit("One", {"a.txt": "one"})
        self.two = self.place.origin.commit("Two", {"a.txt": "two"})

    def serving(self) -> set[int]:
        """The processes of ours that serve the slot now."""
        return set(list_serving(self.place.slot.serves))

    def assert_moved(self, commit: str, content: str, limits: Limits | None = None) -> None:
        checkout = self.place.check_out(commit, limits=limits)
        self.assertEqual(content, (checkout.path / "a.txt").read_text())

    def test_one_sandbox_serves_commit_after_commit(self) -> None:
        self.assert_moved(self.one, "one")
        serving = self.serving()
        self.assertTrue(serving)
        self.assert_moved(self.two, "two")
        self.assert_moved(self.one, "one")
        self.assertEqual(serving, self.serving())

    def kill_what_serves(self) -> set[int]:
        """kill -9; returns what it hit."""
        killed = self.serving()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        return killed

    def test_one_that_is_killed_after_the_look_at_it_is_replaced(self) -> None:
        self.assert_moved(self.one, "one")
        is_of_use = Mover.is_of_use

        def look_and_kill(mover: Mover, shown: Inodes) -> bool:
            found = is_of_use(mover, shown)
            self.kill_what_serves()
            return found

        with patch.object(Mover, "is_of_use", look_and_kill):
            self.assert_moved(self.two, "two")
        serving = self.serving()
        self.assert_moved(self.one, "one")
        self.assertEqual(serving, self.serving())

    def test_one_that_somebody_killed_is_replaced(self) -> None:
        self.assert_moved(self.one, "one")
        killed = self.kill_what_serves()
        untouched = (self.place.path / "a.txt").stat().st_ino
        self.assert_moved(self.one, "one")
        self.assertEqual(untouched, (self.place.path / "a.txt").stat().st_ino, "all was laid out anew")
        self.assert_moved(self.two, "two")
        self.assertFalse(killed & self.serving())

    def test_a_folder_in_place_of_the_one_it_shows(self) -> None:
        self.assert_moved(self.one, "one")
        self.place.path.rename(self.place.path.with_name("aside"))
        self.assert_moved(self.two, "two")
        aside = self.place.path.with_name("aside") / "a.txt"
        self.assertEqual("one", aside.read_text())

    def test_other_limits_hold(self) -> None:
        large = self.place.origin.commit("Large", {"a.txt": "x" * (3 << 20)})
        self.assert_moved(large, "x" * (3 << 20))
        self.assert_moved(self.one, "one")
        with self.assertRaisesRegex(Exception, "cannot be checked out"):
            self.place.check_out(large, limits=Limits(file_mib=2))
        self.assert_moved(self.two, "two", Limits(file_mib=2))

    def test_tests_see_nothing_of_it(self) -> None:
        checkout = self.place.commit({"a.txt": "three"})
        self.assertTrue(self.serving())
        script = "import os; print(sorted(name for name in os.listdir('/proc') if name.isdigit()))"
        ended = run_python(self.place.open(checkout), script)
        self.assertEqual("['1', '2']", ended.output.strip())

    def test_a_few_are_kept_and_none_after_the_slot(self) -> None:
        self.assert_moved(self.one, "one")
        each = len(self.serving())
        for number in range(KEPT + 2):
            self.assert_moved(self.two, "two", Limits(run_s=100 + number))
        self.assertEqual(KEPT * each, len(self.serving()))
        self.place.slot.release()
        self.addCleanup(setattr, self.place, "slot", _Released())
        until_s = time.monotonic() + 2
        while self.serving() and time.monotonic() < until_s:
            time.sleep(0.01)
        self.assertEqual(set(), self.serving())


class _Released:
    """Stands for a slot that needs no release any more."""

    def release(self) -> None:
        pass
