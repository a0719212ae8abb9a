"""Environments are made once, kept while they are used, and removed when others are used more."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

from ciapp.errors import InstallError, StaleAttemptError
from ciapp.testing.environments import MADE, About, Environments, Held
from tests.support.git_repositories import new_folder
from tests.support.sandboxes import wait_until

MIB = 1 << 20
KILLED_MAKER = """\
import sys, time
from pathlib import Path
from ciapp.testing.environments import Environments

def make(folder):
    (folder / "made" / "half").touch()
    print("making", flush=True)
    time.sleep(600)

Environments(Path(sys.argv[1]), limit_mib=100).obtain("key", make, should_stop=lambda: False)
"""


def make_file(folder: Path, size: int = 1) -> About:
    (folder / MADE / "file").write_bytes(b"x" * size)
    return About(note="made by hand")


def never() -> bool:
    return False


class TestEnvironments(unittest.TestCase):
    def setUp(self):
        self.state = new_folder(self)
        self.environments = self.open()
        self.open_locks: set[int] = set()

    def open(self, limit_mib: int = 100) -> Environments:
        return Environments(self.state, limit_mib=limit_mib)

    def obtain(self, key: str, environments: Environments | None = None, size: int = 1) -> Held:
        environments = environments or self.environments
        held = environments.obtain(key, lambda folder: make_file(folder, size), should_stop=never)
        self.addCleanup(lambda: os.close(held.lock) if held.lock in self.open_locks else None)
        self.open_locks.add(held.lock)
        return held

    def release(self, held: Held) -> None:
        self.open_locks.discard(held.lock)
        held.release()

    def keys(self) -> list[str]:
        return sorted(path.name for path in self.environments.path.iterdir() if path.is_dir())

    def test_an_environment_is_made_once(self):
        first = self.obtain("key")
        second = self.environments.obtain("key", self.fail, should_stop=never)
        self.addCleanup(second.release)
        self.assertEqual((first.path, "made by hand"), (second.path, second.about.note))
        self.assertEqual(b"x", (second.path / "file").read_bytes())

    def test_one_maker_serves_all_who_ask_at_the_same_time(self):
        made, found = [], []

        def make(folder: Path) -> About:
            made.append(folder)
            time.sleep(0.2)  # long enough for all others to ask
            return make_file(folder)

        def ask() -> None:
            held = self.open().obtain("key", make, should_stop=never)
            found.append(held.path)
            held.release()

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        self.assertEqual((1, 5, 1), (len(made), len(found), len(set(found))))

    def test_who_looked_before_it_was_made_does_not_make_it_again(self):
        made: list[Path] = []
        both_looked = threading.Barrier(2)

        class LooksTogether(Environments):
            """Whose first look is over when the other's is."""

            is_first = True

            def _find(self, key: str, lock: int) -> Held | None:
                found = super()._find(key, lock)
                if self.is_first:
                    self.is_first = False
                    both_looked.wait(30)
                return found

        def make(folder: Path) -> About:
            made.append(folder)
            return make_file(folder)

        def ask() -> None:
            LooksTogether(self.state, limit_mib=100).obtain("key", make, should_stop=never).release()

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        self.assertEqual((1, False), (len(made), both_looked.broken))

    def test_what_is_half_made_is_not_there(self):
        def make(folder: Path) -> About:
            make_file(folder)
            raise InstallError("the disk is full")

        with self.assertRaisesRegex(InstallError, "the disk is full"):
            self.environments.obtain("key", make, should_stop=never)
        self.assertEqual([], self.keys())
        self.assertEqual([], list((self.environments.workshop / "building").iterdir()))
        self.assertTrue((self.obtain("key").path / "file").exists())

    def test_a_maker_that_is_killed_is_replaced(self):
        maker = subprocess.Popen([sys.executable, "-c", KILLED_MAKER, self.state], stdout=subprocess.PIPE)
        assert maker.stdout is not None
        with maker, maker.stdout:
            self.assertEqual(b"making\n", maker.stdout.readline())
            maker.kill()
        held = self.obtain("key")
        self.assertEqual(["about.json", "file"], sorted(path.name for path in held.path.iterdir()))

    def test_who_waits_for_a_maker_can_be_stopped(self):
        is_making, may_end = threading.Event(), threading.Event()

        def make(folder: Path) -> About:
            is_making.set()
            may_end.wait(30)
            return make_file(folder)

        maker = threading.Thread(
            target=lambda: self.open().obtain("key", make, should_stop=never).release(), daemon=True
        )
        maker.start()
        self.assertTrue(is_making.wait(30))
        with self.assertRaisesRegex(StaleAttemptError, "while another slot made its environment"):
            self.environments.obtain("key", self.fail, should_stop=lambda: True)
        may_end.set()
        maker.join(30)

    def test_the_least_recently_used_goes_first(self):
        for number, key in enumerate(("a", "b", "c")):
            self.release(self.obtain(key, size=MIB))
            os.utime(self.environments.path / f"{key}.lock", (number, number))
        self.release(self.obtain("a"))  # used again
        self.release(self.obtain("d", self.open(limit_mib=3), size=MIB // 2))
        self.assertEqual(["a", "c", "d"], self.keys())

    def test_one_in_use_stays_however_old(self):
        held = self.obtain("old", size=2 * MIB)
        os.utime(self.environments.path / "old.lock", (0, 0))
        self.release(self.obtain("new", self.open(limit_mib=1), size=MIB))
        self.assertEqual(["new", "old"], self.keys())
        self.release(held)
        self.release(self.obtain("newest", self.open(limit_mib=1)))
        self.assertEqual(["newest"], self.keys())
        self.assertEqual(["newest.lock"], sorted(path.name for path in self.environments.path.glob("*.lock")))

    def test_downloads_go_when_they_take_more_than_half(self):
        downloads = self.environments.downloads
        downloads.mkdir()
        (downloads / "big").write_bytes(b"x" * 2 * MIB)
        with self.environments.using_downloads():
            self.release(self.obtain("a", self.open(limit_mib=1)))
            self.assertTrue(downloads.exists())
        self.release(self.obtain("b", self.open(limit_mib=1)))
        self.assertFalse(downloads.exists())

    def test_what_killed_makers_left_is_removed_with_the_next_environment(self):
        left = self.environments.workshop / "building" / "dead"
        (left / MADE).mkdir(parents=True)
        self.release(self.obtain("key"))
        self.assertFalse(left.exists())
        self.assertFalse((self.environments.path / "dead.lock").exists())

    def test_a_note_is_kept_by_key(self):
        self.assertEqual("", self.environments.note("key"))
        self.environments.leave_note("key", "it reads its code")
        self.assertEqual("it reads its code", self.open().note("key"))
        self.assertEqual("", self.environments.note("other"))

    def test_a_lock_that_was_removed_meanwhile_is_nobodys(self):
        """A waiter may hold the lock file of an environment that is being removed."""
        lock = self.environments.path / "key.lock"
        self.release(self.obtain("key"))
        with lock.open() as old:
            fcntl.flock(old, fcntl.LOCK_EX)
            found: list[Held] = []
            waiter = threading.Thread(
                target=lambda: found.append(self.open().obtain("key", make_file, should_stop=never))
            )
            waiter.start()
            lock.unlink()
        waiter.join(30)
        self.assertTrue(wait_until(lambda: bool(found)))
        self.addCleanup(found[0].release)
        self.assertTrue(os.path.samestat(os.fstat(found[0].lock), lock.stat()))

    def test_a_state_folder_that_cannot_be_used_is_ours(self):
        (self.state / "file").touch()
        with self.assertRaisesRegex(InstallError, "cannot be used: Not a directory; check state_dir"):
            Environments(self.state / "file", limit_mib=1)


if __name__ == "__main__":
    unittest.main()
