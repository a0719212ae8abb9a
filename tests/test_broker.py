"""The folder of a broker and its owners: real files, real processes, kill -9."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections import Counter
from pathlib import Path
from unittest import mock

from ciapp.broker.folder import BrokerFolder
from ciapp.broker.owner import Owner
from ciapp.errors import BrokerError
from tests.support.workers import ROOT, wait_until

#: A process that takes one message, says so, and holds it.
HOLDER = """
import sys, time
from pathlib import Path
from ciapp.broker.folder import BrokerFolder
from ciapp.broker.owner import Owner
owner = Owner(BrokerFolder(Path(sys.argv[1])))
owner.keep("events", None)
print(owner.take("runs").content.decode(), flush=True)
time.sleep(600)
"""
#: A process that ends while it holds a message, and a thread of it would become another owner for ever.
LEAVER = """
import sys, threading, time
from contextlib import suppress
from pathlib import Path
from ciapp.broker.folder import BrokerFolder
from ciapp.broker.owner import Owner
from ciapp.errors import BrokerError
folder = BrokerFolder(Path(sys.argv[1]))
owners = [Owner(folder)]
owners[0].keep("events", None)
print(owners[0].take("runs").content.decode(), flush=True)
def connect_again():
    while True:
        while owners[-1].is_open:
            time.sleep(0.001)
        with suppress(BrokerError):
            owners.append(Owner(folder))
threading.Thread(target=connect_again, daemon=True).start()
"""
#: A process that puts numbered messages on a queue.
WRITER = """
import sys
from pathlib import Path
from ciapp.broker.folder import BrokerFolder
folder = BrokerFolder(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    folder.put("runs", (f"{sys.argv[2]}-{number} " + "x" * 20000 + " end").encode(), durable=False)
"""
#: A process that takes and settles whatever comes until it is told to end, and prints what it took.
READER = """
import sys
from pathlib import Path
from ciapp.broker.folder import BrokerFolder
from ciapp.broker.owner import Owner
folder = BrokerFolder(Path(sys.argv[1]))
owner = Owner(folder)
owner.listen("runs")
while True:
    owner.hear()
    while (message := owner.take("runs")) is not None:
        name, body, end = message.content.decode().split(" ")
        if name == "stop":
            folder.put("runs", message.content, durable=False)
            owner.close()
            sys.exit()
        print(name if end == "end" and len(body) == 20000 else "torn")
        owner.settle(message.tag)
    owner.wait(1)
"""


def message_name(put_at_ns: int) -> str:
    """The file name of a message."""
    return f"9-{put_at_ns:020d}-{'f' * 12}.0"


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


class BrokerTest(unittest.TestCase):
    """A folder for each test."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = BrokerFolder(Path(temporary.name) / "broker")
        self.folder.declare_queue("runs")

    def owner(self) -> Owner:
        owner = Owner(self.folder)
        self.addCleanup(owner.close)
        return owner

    def put(self, *contents: str, queue: str = "runs", priority: int = 0) -> None:
        for content in contents:
            self.folder.put(queue, content.encode(), priority=priority)

    def take_all(self, owner: Owner, queue: str = "runs") -> list[str]:
        found = []
        while (message := owner.take(queue)) is not None:
            found.append(message.content.decode())
        return found

    def sweep(self) -> None:
        """Sweep now, however short a time ago somebody did."""
        (self.folder.path / "sweep.lock").touch()
        os.utime(self.folder.path / "sweep.lock", (0, 0))
        self.folder.sweep()

    def sweep_until_size(self, size: int) -> None:
        def swept() -> bool:
            self.sweep()
            return self.folder.size("runs") == size

        wait_until(swept, f"{size} messages on the queue", 10)

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(self.folder.path), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def files(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.folder.path))
            for path in self.folder.path.rglob("*")
            if not path.is_dir() and path.name != "sweep.lock"
        )


class TestQueue(BrokerTest):
    def test_messages_are_taken_in_the_order_they_were_put(self) -> None:
        sent = [str(number) for number in range(50)]
        self.put(*sent)

        self.assertEqual(sent, self.take_all(self.owner()))

    def test_a_higher_priority_goes_first(self) -> None:
        self.put("backlog")
        self.put("tip", priority=9)
        self.put("next", priority=5)

        self.assertEqual(["tip", "next", "backlog"], self.take_all(self.owner()))

    def test_order_holds_when_the_clock_is_set_back(self) -> None:
        self.put("first")
        with mock.patch("time.time_ns", return_value=time.time_ns() - 3600 * 10**9):
            self.put("second", "third")

        self.assertEqual(["first", "second", "third"], self.take_all(self.owner()))

    def test_size_and_purge_count_what_nobody_has_taken(self) -> None:
        self.put("a", "b", "c")
        self.owner().take("runs")

        self.assertEqual(2, self.folder.size("runs"))
        self.assertEqual(2, self.folder.purge("runs"))
        self.assertEqual(0, self.folder.size("runs"))

    def test_any_name_makes_a_queue_within_the_folder(self) -> None:
        for name in ("../escape", "/etc", ".", "..", ".hidden", "a!b", "w1@host.celery.pidbox", "ä ö"):
            with self.subTest(name):
                self.folder.declare_queue(name)
                self.put("here", queue=name)
                self.assertEqual(["here"], self.take_all(self.owner(), name))

        self.assertEqual(["broker"], names(self.folder.path.parent))

    def test_a_message_for_a_queue_that_is_not_there_is_dropped(self) -> None:
        self.put("a", queue="gone")

        self.assertEqual([], self.files())

    def test_bindings_are_kept_until_their_queue_is_deleted(self) -> None:
        self.folder.declare_queue("events")
        self.folder.bind("celeryev", ("worker.#", r"^worker\..*?$", "events"))
        self.folder.bind("celeryev", ("#", "^.*?$", "runs"))
        self.folder.bind("celeryev", ("#", "^.*?$", "runs"))
        both = [("#", "^.*?$", "runs"), ("worker.#", r"^worker\..*?$", "events")]
        self.assertEqual(both, self.folder.bindings("celeryev"))

        self.folder.delete_queue("events")
        self.assertEqual(both[:1], self.folder.bindings("celeryev"))

        self.folder.unbind("celeryev", both[0])
        self.assertEqual([], self.folder.bindings("celeryev"))

    def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(self) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(signal.signal, signal.SIGXFSZ, signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, before)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

        with self.assertRaises(BrokerError) as raised:
            self.put("x" * 10_000)

        self.assertIn(f"broker folder {self.folder.path} cannot be used", str(raised.exception))
        self.assertEqual([], self.files())
        self.assertEqual(0, self.folder.size("runs"))

    def test_hot_readers_and_writers_lose_tear_and_double_nothing(self) -> None:
        readers = [self.start(READER) for _ in range(3)]
        writers = [self.start(WRITER, str(number), "1000") for number in range(3)]
        for writer in writers:
            self.assertEqual(0, writer.wait(120))
        wait_until(lambda: self.folder.size("runs") == 0, "an empty queue", 60)
        self.put("stop  end")
        taken = [name for reader in readers for name in reader.communicate(timeout=60)[0].split()]

        expected = [f"{writer}-{number}" for writer in range(3) for number in range(1000)]
        self.assertEqual(Counter(expected), Counter(taken))


class TestOwner(BrokerTest):
    def test_a_settled_message_is_gone(self) -> None:
        self.put("a")
        owner = self.owner()
        message = owner.take("runs")
        assert message is not None

        owner.settle(message.tag)
        owner.close()

        self.assertEqual(0, self.folder.size("runs"))

    def test_a_message_given_back_keeps_its_place_and_says_so(self) -> None:
        self.put("a", "b")
        owner = self.owner()
        first = owner.take("runs")
        assert first is not None
        self.assertEqual(0, first.returned)

        owner.give_back(first.tag)

        again = owner.take("runs")
        assert again is not None
        self.assertEqual(("a", 1), (again.content.decode(), again.returned))

    def test_a_message_is_its_owners_alone_while_it_lives(self) -> None:
        self.put("a")
        self.owner().take("runs")

        self.sweep()

        self.assertIsNone(self.owner().take("runs"))

    def test_what_a_closed_owner_held_is_back(self) -> None:
        self.put("a", "b")
        owner = self.owner()
        owner.take("runs")

        owner.close()

        self.assertEqual(["a", "b"], self.take_all(self.owner()))

    def test_what_a_killed_owner_held_is_back_after_a_sweep(self) -> None:
        self.put("a")
        self.folder.declare_queue("events")
        holder = self.start(HOLDER)
        assert holder.stdout is not None
        self.assertEqual("a\n", holder.stdout.readline())
        holder.kill()

        self.sweep_until_size(1)

        self.assertFalse(self.folder.has_queue("events"), "its own queue outlived it")
        self.assertEqual([], names(self.folder.owners))

    def test_what_an_owner_held_whose_process_ended_in_order_is_back_without_a_sweep(self) -> None:
        self.put("a")
        self.folder.declare_queue("events")
        leaver = self.start(LEAVER)
        assert leaver.stdout is not None
        self.assertEqual("a\n", leaver.stdout.readline())
        leaver.wait()

        self.assertEqual(1, self.folder.size("runs"))
        self.assertFalse(self.folder.has_queue("events"), "its own queue outlived it")
        self.assertEqual([], names(self.folder.owners))

    def test_a_forgotten_owner_in_a_living_process_counts_as_dead(self) -> None:
        self.put("a")
        owner = Owner(self.folder)
        owner.take("runs")
        owner.forget()

        self.sweep_until_size(1)

    def test_a_forked_child_does_not_hold_what_its_parent_held(self) -> None:
        self.put("a")
        owner = Owner(self.folder)
        owner.take("runs")
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        self.addCleanup(os.waitpid, child, 0)
        self.addCleanup(os.kill, child, signal.SIGKILL)

        owner.forget()

        self.sweep_until_size(1)

    def test_a_forked_child_that_closes_the_owner_takes_nothing_from_its_parent(self) -> None:
        self.put("a")
        owner = self.owner()
        message = owner.take("runs")
        assert message is not None
        child = os.fork()
        if child == 0:
            try:
                owner.give_back(message.tag)
                owner.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)

        self.assertEqual(0, self.folder.size("runs"))
        self.assertTrue((owner.path / message.tag).exists())

    def test_a_listening_owner_is_woken_at_once(self) -> None:
        owner = self.owner()
        owner.listen("runs")
        started = time.monotonic()
        writer = self.start(WRITER, "w", "1")

        owner.wait(30)

        self.assertEqual(0, writer.wait(30))
        self.assertLess(time.monotonic() - started, 20)
        self.assertIsNotNone(owner.take("runs"))
        owner.hear()
        started = time.monotonic()
        owner.wait(0.05)
        self.assertGreaterEqual(time.monotonic() - started, 0.04, "a wake-up was left after `hear`")

    def test_a_queue_ends_with_the_last_owner_that_keeps_it(self) -> None:
        self.folder.declare_queue("events")
        self.folder.bind("celeryev", ("#", "^.*?$", "events"))
        first, last = self.owner(), self.owner()
        first.keep("events", None)
        last.keep("events", None)

        first.close()
        self.assertTrue(self.folder.has_queue("events"))

        last.close()
        self.assertFalse(self.folder.has_queue("events"))
        self.assertEqual([], self.folder.bindings("celeryev"))

    def test_messages_past_their_lifetime_are_dropped_with_a_warning(self) -> None:
        self.folder.declare_queue("events")
        self.owner().keep("events", 5000)
        old, new = (message_name(time.time_ns() - age_s * 10**9) for age_s in (6, 0))
        (self.folder.queues / "events" / old).write_bytes(b"old")
        (self.folder.queues / "events" / new).write_bytes(b"new")

        with self.assertLogs("ciapp.broker", "WARNING") as logged:
            self.sweep()

        self.assertEqual(["old messages dropped"], [record.msg for record in logged.records])
        self.assertEqual([new], list(self.folder.messages("events")))

    def test_an_owner_whose_folder_was_removed_says_so(self) -> None:
        self.put("a")
        owner = Owner(self.folder)
        self.addCleanup(owner.forget)
        (owner.path / "lock").unlink()
        (owner.path / "wake").unlink()
        owner.path.rmdir()

        with self.assertRaisesRegex(BrokerError, "was removed under us"):
            owner.take("runs")


class TestGarbage(BrokerTest):
    def test_foreign_files_are_put_aside_and_hurt_nothing(self) -> None:
        queue = self.folder.queues / "runs"
        good = message_name(1)
        (queue / "README").write_text("hello")
        (queue / ".DS_Store").write_bytes(b"\0")
        (queue / "a folder").mkdir()
        (queue / good.replace("f", "b")).touch()  # a message's name, and empty
        os.mkfifo(queue / good.replace("f", "c"))
        (queue / good.replace("f", "d")).symlink_to("/etc/passwd")
        (queue / good.replace("f", "e")).mkdir()
        self.put("good")

        with self.assertLogs("ciapp.broker", "WARNING") as logged:
            taken = self.take_all(self.owner())

        self.assertEqual(["good"], taken)
        self.assertEqual(7, len(names(self.folder.aside)))
        self.assertEqual({"not a message, put aside"}, {record.msg for record in logged.records})

    def test_foreign_files_among_owners_and_exchanges_hurt_nothing(self) -> None:
        (self.folder.owners / "notes.txt").write_text("hello")
        (self.folder.owners / "stranger").mkdir()
        (self.folder.owners / "stranger" / "file").touch()
        (self.folder.owners / "buried by half").mkdir()
        self.folder.bind("celeryev", ("#", "^.*?$", "runs"))
        (self.folder.exchanges / "celeryev" / "junk").touch()
        (self.folder.exchanges / "other.txt").touch()
        (self.folder.queues / "a file").touch()

        with self.assertLogs("ciapp.broker", "WARNING"):
            self.sweep()
            self.assertEqual([("#", "^.*?$", "runs")], self.folder.bindings("celeryev"))
            self.folder.declare_queue("a file")

        self.assertTrue(self.folder.has_queue("a file"))
        self.assertEqual([], names(self.folder.owners))
        self.assertEqual([], self.folder.bindings("other.txt"))

    def test_what_a_killed_writer_left_is_swept_away(self) -> None:
        old, new = self.folder.parts / "old", self.folder.parts / "new"
        old.touch()
        new.touch()
        os.utime(old, (0, 0))

        self.sweep()

        self.assertEqual(["tmp/new"], self.files())


if __name__ == "__main__":
    unittest.main()
