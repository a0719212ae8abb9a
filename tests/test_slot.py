from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import unittest
from pathlib import Path

from ciapp.errors import CheckoutError
from ciapp.testing import sweeper
from ciapp.testing.slot import FIRST_UID, Slot, take_slot
from tests.support.git_repositories import new_folder
from tests.support.processes import processes_with
from tests.support.sandboxes import wait_until

ROOT = os.geteuid() == 0


class TestSlot(unittest.TestCase):
    def setUp(self) -> None:
        self.state = new_folder(self) / "state"

    def take(self) -> Slot:
        slot = take_slot(self.state)
        self.addCleanup(slot.release)
        return slot

    def test_each_taker_has_a_slot_of_its_own(self) -> None:
        self.assertEqual([0, 1, 2], [self.take().number for _ in range(3)])

    def test_a_released_slot_is_taken_again(self) -> None:
        first = take_slot(self.state)
        second = self.take()
        first.release()
        self.assertEqual((0, 1), (self.take().number, second.number))

    def test_the_slot_of_a_killed_process_is_free(self) -> None:
        reader, writer = os.pipe()
        holder = os.fork()
        if holder == 0:
            take_slot(self.state)
            os.write(writer, b"taken")
            signal.pause()
        os.read(reader, 5)
        self.assertEqual(1, self.take().number)
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        self.assertEqual(0, self.take().number)

    def test_programs_that_are_started_do_not_hold_the_slot(self) -> None:
        slot = take_slot(self.state)
        sleeper = subprocess.Popen(["sleep", "60"], close_fds=False)
        self.addCleanup(sleeper.wait)
        self.addCleanup(sleeper.kill)
        slot.release()
        self.assertEqual(0, self.take().number)

    def test_a_folder_that_cannot_be_made_is_told_with_its_name(self) -> None:
        self.state.write_text("a file")
        with self.assertRaisesRegex(
            CheckoutError, f"^{self.state}/slots/0 cannot be used: .*; check state_dir$"
        ):
            take_slot(self.state)

    def test_files_of_an_ordinary_users_slots_are_out_of_everybody_elses_reach(self) -> None:
        self.state.parent.chmod(0o777)
        worker = os.fork()
        if worker == 0:
            try:
                if os.geteuid() == 0:
                    os.setuid(65534)
                take_slot(self.state)
            finally:
                os._exit(0)
        os.waitpid(worker, 0)
        self.assertEqual(0o700, stat.S_IMODE((self.state / "slots").stat().st_mode))


class TestLeftovers(unittest.TestCase):
    def setUp(self) -> None:
        self.state = new_folder(self) / "state"
        self.slot = take_slot(self.state)
        self.identity = self.slot.identity

    def start_leftover(self) -> subprocess.Popen[bytes]:
        left = subprocess.Popen([self.identity.name, "60"], executable="/usr/bin/sleep")
        self.addCleanup(left.wait)
        self.addCleanup(left.kill)
        # A program has its command line only a moment after it was started.
        self.assertTrue(wait_until(lambda: left.pid in processes_with(self.identity.name)))
        return left

    def test_a_process_that_serves_a_dead_workers_slot_is_ended(self) -> None:
        left = self.start_leftover()
        self.slot.release()
        take_slot(self.state).release()
        self.assertTrue(wait_until(lambda: left.poll() is not None, 2.0))

    def test_a_process_that_serves_a_killed_worker_is_ended_though_nobody_takes_the_slot(self) -> None:
        reader, writer = os.pipe()
        holder = os.fork()
        if holder == 0:
            os.write(writer, take_slot(self.state).identity.name.encode())
            signal.pause()
        self.identity = self.identity.__class__(0, 0, False, os.read(reader, 100).decode())
        left = self.start_leftover()
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        self.assertTrue(wait_until(lambda: left.poll() is not None, 2.0))
        self.slot.release()

    def test_a_process_that_serves_the_next_holder_is_not_swept(self) -> None:
        swept = self.identity.name
        self.slot.release()
        self.slot = take_slot(self.state)
        self.identity = self.slot.identity
        left = self.start_leftover()
        subprocess.run([sys.executable, "-I", "-S", sweeper.__file__, swept], check=True)
        self.assertIsNone(left.poll())
        self.slot.release()

    def test_a_released_slot_has_no_sweeper(self) -> None:
        name = self.identity.name
        self.assertEqual(1, len(processes_with(name)))
        self.slot.release()
        self.assertEqual([], processes_with(name))

    def test_a_process_that_serves_a_held_slot_is_left_alone(self) -> None:
        left = self.start_leftover()
        take_slot(self.state).release()
        self.slot.release()
        self.assertIsNone(left.poll())

    @unittest.skipUnless(ROOT, "only root gives slots an identity of their own")
    def test_a_process_under_a_dead_workers_identity_is_ended(self) -> None:
        left = subprocess.Popen(
            ["sleep", "60"], user=self.identity.uid, group=self.identity.gid, extra_groups=[]
        )
        self.addCleanup(left.wait)
        self.addCleanup(left.kill)
        self.slot.release()
        take_slot(self.state).release()
        self.assertTrue(wait_until(lambda: left.poll() is not None, 2.0))


@unittest.skipUnless(ROOT, "only root gives slots an identity of their own")
class TestIdentity(unittest.TestCase):
    def identity_of(self, state: Path, number: int) -> int:
        for _ in range(number):
            self.addCleanup(take_slot(state).release)
        slot = take_slot(state)
        self.addCleanup(slot.release)
        self.assertEqual(slot.identity.uid, slot.identity.gid)
        return slot.identity.uid

    def test_each_slot_of_each_installation_has_its_own(self) -> None:
        first, second = new_folder(self), new_folder(self)
        uids = {self.identity_of(first, 0), self.identity_of(first, 1), self.identity_of(second, 0)}
        self.assertEqual(3, len(uids))
        self.assertTrue(all(FIRST_UID <= uid < 2**31 for uid in uids))
