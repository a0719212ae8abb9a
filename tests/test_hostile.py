"""Attacks that a commit's tests may try, each shown at work without a sandbox and then held by one.

Where an attack would harm this host, something else stands in for the victim, and the test says what.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import sys
import unittest
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from unittest.mock import patch

import pytest

from ciapp.settings import Limits
from ciapp.testing import bubblewrap
from ciapp.testing.sandbox import SandboxSetting, open_sandbox
from ciapp.testing.slot import take_slot
from tests.support.git_repositories import new_folder
from tests.support.processes import processes_with
from tests.support.sandboxes import (
    PYTHON,
    WEAK,
    Ended,
    Place,
    alone_with_memory,
    needs_bubblewrap,
    run_command,
    run_python,
    tree_of,
    wait_until,
)
from tests.support.servers import listens
from tests.support.services import need

SAMPLES = Path(__file__).parent / "samples"
TREE = Path(__file__).resolve().parent.parent
ROOT = os.geteuid() == 0
SETTINGS: tuple[SandboxSetting, ...] = ("required", WEAK)
SERVERS = {"Redis": 6379, "RabbitMQ": 5672, "PostgreSQL": 5432}
KEY_CALLS = {"x86_64": (248, 250), "aarch64": (217, 219)}  #: numbers of add_key and keyctl


def run_unconfined(sample: str, *arguments: str) -> list[str]:
    """What an attack says that it could do, run as any program."""
    script = SAMPLES / sample / "attack.py"
    done = subprocess.run(
        [sys.executable, "-I", str(script), *arguments], capture_output=True, text=True, timeout=60, cwd="/"
    )
    return done.stdout.splitlines()


@needs_bubblewrap
class HostileTest(unittest.TestCase):
    """A slot in which attacks are run."""

    def setUp(self) -> None:
        self.place = Place(self, "required")
        self.outside = new_folder(self)
        self.outside.chmod(0o777)

    def attack(
        self, sample: str, *arguments: str, limits: Limits | None = None, within_s: float = 60
    ) -> Ended:
        """Run an attack in the sandbox, from the commit that holds it."""
        script = (SAMPLES / sample / "attack.py").read_text("utf-8")
        checkout = self.place.commit({"attack.py": script})
        sandbox = self.place.open(checkout, limits=limits)
        return run_command(
            sandbox, [str(PYTHON.python), "-I", "attack.py", *arguments], PYTHON.readable, within_s
        )

    def assert_held(self, sample: str, *arguments: str, expected: int = 1) -> None:
        """The attack works without a sandbox and comes to nothing in one."""
        self.assertGreaterEqual(len(run_unconfined(sample, *arguments)), expected, "the attack is none")
        self.assertEqual((0, ""), self.attack(sample, *arguments)[:2])

    def start_victim(self, **environment: str) -> tuple[subprocess.Popen[bytes], str]:
        """A process of the worker's user, and a mark to know it by."""
        mark = f"victim-{uuid.uuid4()}"
        victim = subprocess.Popen(
            [mark, "300"], executable=shutil.which("sleep"), env={**os.environ, **environment}
        )
        self.addCleanup(victim.wait)
        self.addCleanup(victim.kill)
        self.assertTrue(wait_until(lambda: victim.pid in processes_with(mark)))
        return victim, mark


class TestSecrets(HostileTest):
    def test_the_brokers_password_is_not_to_be_found(self) -> None:
        secret = f"secret-{uuid.uuid4()}"
        self.start_victim(CIAPP_BROKER_URL=f"amqp://ciapp:{secret}@broker")
        settings = self.place.state / "ciapp.toml"
        settings.write_text(f'broker_url = "amqp://ciapp:{secret}@broker"\n')
        found = run_unconfined("hostile_reads_secrets", secret[::-1], str(settings))
        self.assertGreaterEqual(len(found), 2, found)
        ended = self.attack("hostile_reads_secrets", secret[::-1], str(settings))
        self.assertEqual((0, ""), ended[:2])

    def test_servers_in_files_and_by_name_do_not_answer(self) -> None:
        name = f"ciapp-{uuid.uuid4()}"
        path = self.outside / "socket"
        for address in (str(path), f"\0{name}"):
            server = socket.socket(socket.AF_UNIX)
            self.addCleanup(server.close)
            server.bind(address)
            server.listen()
        path.chmod(0o777)
        self.assert_held("hostile_connects_to_servers", str(path), f"@{name}", expected=2)

    def test_broker_and_database_on_loopback_do_not_answer(self) -> None:
        for name, port in SERVERS.items():
            with self.subTest(name):
                if not listens(port):
                    need(name, f"nobody listens on port {port}")
                self.assert_held("hostile_connects_to_servers", f"127.0.0.1:{port}", f"[::1]:{port}")
        # PostgreSQL listens on a socket file as well.
        for file in Path("/run/postgresql").glob(".s.PGSQL.*[0-9]"):
            self.assert_held("hostile_connects_to_servers", str(file))

    def test_the_machine_that_this_one_is_a_guest_of_is_out_of_reach_at_both_levels(self) -> None:
        if not run_unconfined("hostile_leaves_its_machine"):
            self.skipTest("this kernel has no sockets between machines")
        for setting in SETTINGS:
            self.place.setting = setting
            self.assertEqual((0, ""), self.attack("hostile_leaves_its_machine")[:2])

    @unittest.skipUnless(platform.machine() in KEY_CALLS, "numbers of system calls are not known here")
    def test_keyrings_are_neither_read_nor_left_to_others(self) -> None:
        # In a process of its own, so that this one's keyring stays as it is.
        calls = tuple(map(str, KEY_CALLS[platform.machine()]))
        worker = """if True:
            import ctypes, subprocess, sys
            add_key, keyctl = map(int, sys.argv[1:3])
            libc = ctypes.CDLL(None)
            assert libc.syscall(keyctl, 1, None) > 0, "no keyring of its own"
            assert libc.syscall(add_key, b"user", b"ticket", b"secret", 6, -3) > 0
            from tests.test_hostile import TestSecrets
            from tests.test_hostile import run_unconfined
            test = TestSecrets("run")
            test.setUp()
            try:
                print("without", *run_unconfined("hostile_reads_keyrings", "ticket", "a", *sys.argv[1:3]))
                ended = test.attack("hostile_reads_keyrings", "ticket", "b", *sys.argv[1:3])
                print("within", ended.status, ended.output)
                test.place.setting = "off-as-root"
                ended = test.attack("hostile_reads_keyrings", "ticket", "c", *sys.argv[1:3])
                print("limits", ended.status, ended.output)
            finally:
                test.doCleanups()
            """
        done = subprocess.run(
            [sys.executable, "-c", worker, *calls],
            cwd=TREE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
        )
        if "no keyring of its own" in done.stderr:
            self.skipTest("this kernel has no keyrings, or not for us")
        self.assertEqual("without read secret left a\nwithin 0 \nlimits 0 \n", done.stdout, done.stderr)


class TestHost(HostileTest):
    def test_nothing_that_the_worker_needs_can_be_changed(self) -> None:
        commit = self.place.commit({"app.py": ""}).commit
        needed = [
            self.place.mirror.objects / commit[:2] / commit[2:],
            self.place.mirror.path / "HEAD",
            self.place.slot.path / "git" / "team.git" / "HEAD",
            self.place.slot.path / "lock",
            self.place.state / "slots" / "1" / "other",
            self.place.state / "spool" / "record",
            self.place.state / "ledger.sqlite3",
            self.outside / "venv" / "bin" / "python",
        ]
        for file in needed:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            file.chmod(0o666)
        before = {file: (file.stat().st_mode, file.read_bytes()) for file in needed}
        # Shown on copies, for the attack succeeds.
        copies = [Path(shutil.copy(file, self.outside / f"copy-{file.name}")) for file in needed]
        self.assertEqual(len(copies), len(run_unconfined("hostile_writes_to_the_host", *map(str, copies))))
        inside = [
            "/objects/" + "/".join(needed[0].parts[-2:]),
            *map(str, PYTHON.readable),
            str(PYTHON.python),
        ]
        ended = self.attack("hostile_writes_to_the_host", *map(str, needed), *inside)
        self.assertEqual((0, ""), ended[:2])
        self.assertEqual(before, {file: (file.stat().st_mode, file.read_bytes()) for file in needed})

    @unittest.skipUnless(ROOT, "only root's tests could ever do this")
    def test_devices_cannot_be_changed(self) -> None:
        self.assert_held("hostile_changes_devices", "/dev/null", "/dev/zero", "/dev/tty")

    def test_mounts_cannot_be_changed(self) -> None:
        if ROOT:
            self.assertNotEqual([], run_unconfined("hostile_mounts"))
        self.assertEqual((0, ""), self.attack("hostile_mounts")[:2])

    def test_no_user_namespace_is_to_be_had_at_either_level(self) -> None:
        if not run_unconfined("hostile_becomes_root"):
            self.skipTest("this kernel keeps user namespaces from everybody, or from us")
        for setting in SETTINGS:
            self.place.setting = setting
            self.assertEqual((0, ""), self.attack("hostile_becomes_root")[:2])

    def test_other_processes_are_out_of_reach(self) -> None:
        victim, mark = self.start_victim()
        # The argument of the attack stands in /proc/1/cmdline; the first process inside cannot be killed.
        ended = self.attack("hostile_kills_others", mark)
        self.assertEqual(0, ended.status)
        self.assertIsNone(victim.poll())
        killed = run_unconfined("hostile_kills_others", mark)
        self.assertIn(f"killed {victim.pid}", killed)
        self.assertEqual(-9, victim.wait(10))

    def test_killing_everything_kills_the_run_alone(self) -> None:
        # Not to be shown without a sandbox: it would end every process of this user.
        victim, _ = self.start_victim()
        ended = self.attack("hostile_kills_others", "nobody", "all")
        self.assertIn(ended.status, (0, -9))
        self.assertIsNone(victim.poll())

    def test_other_processes_cannot_be_traced(self) -> None:
        victim, _ = self.start_victim()
        if ROOT:
            self.assertEqual([f"held {victim.pid}"], run_unconfined("hostile_traces_others", str(victim.pid)))
        ended = self.attack("hostile_traces_others", str(victim.pid), *(["1"] if ROOT else []))
        self.assertEqual((0, ""), ended[:2])


class TestProcesses(HostileTest):
    def test_a_fork_bomb_is_held_to_its_number_and_ends_with_the_run(self) -> None:
        # Without a sandbox only four generations: a bomb would take the host with it.
        run_unconfined("hostile_fork_bomb", "4", "mark")
        mark = f"bomb-{uuid.uuid4()}"
        ended = self.attack("hostile_fork_bomb", "0", mark, limits=Limits(processes=40), within_s=3)
        self.assertIn(ended.status, (None, -9))
        self.assertEqual([], processes_with(mark))

    @unittest.skipUnless(platform.machine() == "x86_64", "the attack is for x86_64")
    def test_a_reaper_that_was_untied_and_renamed_dies_with_the_worker_all_the_same(self) -> None:
        # Without a sandbox nothing would die with the worker in the first place.
        mark = f"freed-{uuid.uuid4()}"
        reader, writer = os.pipe()
        script = (SAMPLES / "hostile_frees_its_reaper" / "attack.py").read_text("utf-8")
        checkout = self.place.commit({"attack.py": script})
        worker = os.fork()
        if worker == 0:
            try:
                sandbox = open_sandbox(take_slot(self.place.state), checkout, Limits(), setting="required")
                command = [str(PYTHON.python), "-I", "attack.py", mark]
                sandbox.start(command, environment={}, stdout=writer, stderr=writer, readable=PYTHON.readable)
                signal.pause()
            finally:
                os._exit(1)
        os.close(writer)
        with os.fdopen(reader) as lines:
            # An ordinary user's reaper is the equal of the tests, root's is not.
            self.assertEqual("held\n" if ROOT else "freed\n", lines.readline())
            self.assertGreaterEqual(len(processes_with(mark)), 2)
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
            self.assertTrue(wait_until(lambda: not processes_with(mark), 2.0), processes_with(mark))


class TestMemory(HostileTest):
    COUNTED = ("processes", "files", "shared", "dropped", "mapped", "sent", "thread", "headless", "nested")
    #: Memory of the kernel's, of which a process's own sum tells nothing.
    COUNTED_IN_THE_KERNEL = (
        *("sockets", "connections", "loopback", "pipes", "tables", "parked"),
        *("attributes", "listless", "described", "events"),
    )
    #: The same, in millions of small parts, which take a while.
    COUNTED_IN_SMALL_PARTS = ("locks", "watches")
    #: The same where the kernel filters no calls, or has them under numbers that the filter does not know.
    COUNTED_WITHOUT_FILTER = ("mounts", "mounted")
    ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    #: Memory that belongs to no process: is to be had up to a size that does no harm, or not at all.
    REFUSED: ClassVar = {
        "segments": "Invalid argument",
        "semaphores": "Invalid argument",
        "messages": "Function not implemented",
        "rings": "Function not implemented",
        "spliced": "Function not implemented",
        "queues": "Too many open files",
        "filters": "Invalid argument",
        "owned": "Invalid argument",
    }

    def test_memory_is_counted_wherever_it_is(self) -> None:
        # Without a sandbox nothing stops it, which a test host need not suffer.
        self.assert_counted(self.COUNTED)

    def test_memory_that_the_kernel_holds_for_a_run_is_counted_at_both_levels(self) -> None:
        for setting in SETTINGS:
            self.assert_counted_in_the_kernel(self.COUNTED_IN_THE_KERNEL, setting)

    @pytest.mark.slow
    def test_memory_that_the_kernel_holds_in_small_parts_is_counted_at_both_levels(self) -> None:
        for setting in SETTINGS:
            self.assert_counted_in_the_kernel(self.COUNTED_IN_SMALL_PARTS, setting)

    def assert_counted_in_the_kernel(self, ways: Sequence[str], setting: SandboxSetting) -> None:
        """Each way works unconfined, and breaks the limit at this level."""
        self.place.setting = setting
        for way in ways:
            self.assertEqual(["used"], run_unconfined("hostile_memory_bomb", way, "50", "stop"))
        self.assert_counted(ways, 100, within_s=90)

    def test_memory_in_mounts_of_a_user_namespace_is_counted_where_it_is_to_be_had(self) -> None:
        with patch.object(bubblewrap, "refuse_calls", lambda: self.ALLOW_ALL):
            self.assert_counted(self.COUNTED_WITHOUT_FILTER)

    def assert_counted(self, ways: Sequence[str], memory_mib: int = 200, within_s: float = 20) -> None:
        """Each way to use memory breaks the limit."""
        for way in ways:
            with self.subTest(way), alone_with_memory():
                ended = self.attack(
                    "hostile_memory_bomb",
                    way,
                    "500",
                    # For a file in a message, however small, is taken to be as large as may be.
                    limits=Limits(memory_mib=memory_mib, file_mib=60),
                    within_s=within_s,
                )
                self.assertRegex(
                    ended.breach, f"^the run uses \\d+ MiB of memory; {memory_mib} are allowed$", ended
                )

    @unittest.skipUnless(platform.machine() in KEY_CALLS, "numbers of system calls are not known here")
    def test_memory_of_no_process_is_refused_at_both_levels(self) -> None:
        for way, reason in self.REFUSED.items():
            with self.subTest(way):
                self.assertEqual(["used"], run_unconfined("hostile_memory_bomb", way, "1", "stop"))
                self.assert_refused(way, reason)

    def test_secret_memory_and_rules_of_landlock_are_refused_at_both_levels(self) -> None:
        for way in ("secret", "rules"):
            with self.subTest(way):
                if run_unconfined("hostile_memory_bomb", way, "1", "stop") != ["used"]:
                    self.skipTest("this kernel has none, or not for us")
                self.assert_refused(way, "Function not implemented")

    def test_memory_that_is_sent_without_a_copy_is_limited(self) -> None:
        self.assertEqual(["used"], run_unconfined("hostile_memory_bomb", "pinned", "1", "stop"))
        # Where tests are root at the weak level, no such limit holds them.
        self.assert_refused("pinned", "No buffer space available", SETTINGS[:1] if ROOT else SETTINGS)

    def assert_refused(self, way: str, reason: str, settings: Sequence[SandboxSetting] = SETTINGS) -> None:
        """One way to use memory is not to be had."""
        for setting in settings:
            self.place.setting = setting
            ended = self.attack("hostile_memory_bomb", way, "100")
            self.assertEqual((1, f"refused: {reason}\n", ""), ended)

    @alone_with_memory()
    def test_shared_memory_in_small_measure_is_to_be_had(self) -> None:
        script = """
import ctypes, mmap, multiprocessing, multiprocessing.shared_memory, os
libc = ctypes.CDLL(None)
segment = libc.shmget(0, 56, 0o1600)  # as PostgreSQL does when it starts
assert segment >= 0 and libc.shmctl(segment, 0, None) == 0
semaphores = libc.semget(0, 20, 0o1600)
assert semaphores >= 0 and libc.semctl(semaphores, 0, 0) == 0
block = multiprocessing.shared_memory.SharedMemory(create=True, size=60 << 20)
block.buf[:] = bytes(60 << 20)
multiprocessing.Array("b", 10)
file = os.memfd_create("mine")
os.write(file, bytes(60 << 20))
with mmap.mmap(file, 60 << 20) as seen:
    assert seen[:] == bytes(60 << 20)
    import time
    time.sleep(1)
block.close()
block.unlink()
"""
        # Less than three times what is used: a page of a file counts once, whoever has mapped it.
        checkout = self.place.commit({"app.py": ""})
        ended = run_python(self.place.open(checkout, limits=Limits(memory_mib=300)), script)
        self.assertEqual((0, "", ""), ended)


class TestKernel(HostileTest):
    @unittest.skipUnless(platform.machine() in KEY_CALLS, "numbers of system calls are not known here")
    def test_what_no_suite_needs_of_the_kernel_is_refused_at_both_levels(self) -> None:
        self.assertEqual(["aio"], run_unconfined("hostile_widens_the_kernel")[:1])
        for setting in SETTINGS:
            self.place.setting = setting
            self.assertEqual((0, ""), self.attack("hostile_widens_the_kernel")[:2])


class TestDisk(HostileTest):
    def test_disk_is_counted_with_and_without_names(self) -> None:
        for way in ("files", "unlinked"):
            with self.subTest(way):
                ended = self.attack("hostile_fills_the_disk", way, "100", limits=Limits(disk_mib=50))
                self.assertRegex(ended.breach, r"^the run uses \d+ MiB of disk; 50 are allowed$")

    def test_a_file_of_two_gigabytes_is_refused_even_when_it_is_empty(self) -> None:
        self.assertEqual("File too large\n", self.attack("hostile_fills_the_disk", "sparse", "2048").output)
        lenient = Limits(file_mib=4096)
        ended = self.attack("hostile_fills_the_disk", "sparse", "2048", limits=lenient)
        self.assertEqual("made 2048\n", ended.output)
        self.place.commit({"app.py": ""})
        self.assertFalse((self.place.path / "sparse").exists())

    def test_files_without_content_count_as_disk(self) -> None:
        # Without a sandbox nothing stops it, and the disk has no room for another file.
        ended = self.attack("hostile_many_files", "10000000", limits=Limits(disk_mib=20))
        self.assertRegex(ended.breach, r"^the run uses \d+ MiB of disk; 20 are allowed$")
        made = sum(len(list(folder.iterdir())) for folder in (self.place.path / "many").iterdir())
        self.assertLess(made, 400_000)

    def test_two_hundred_thousand_files_are_gone_with_the_next_commit(self) -> None:
        self.assertEqual((0, ""), self.attack("hostile_many_files", "200000", within_s=300)[:2])
        self.assertEqual(200, len(list((self.place.path / "many").iterdir())))
        self.place.commit({"app.py": ""})
        self.assertFalse((self.place.path / "many").exists())


class TestAfterwards(HostileTest):
    #: What a program can find out about where it runs.
    LOOK = """
import os, resource, stat, subprocess
def show(folder):
    for path, folders, files in sorted(os.walk(folder)):
        for name in sorted(folders + files):
            file = os.path.join(path, name)
            facts = os.lstat(file)
            print(ascii(file), oct(facts.st_mode), facts.st_uid, facts.st_nlink)
            if stat.S_ISREG(facts.st_mode) and not file.endswith(".git/index"):
                print(ascii(open(file, "rb").read()))
for folder in (".", "/tmp", "/dev/shm", os.path.expanduser("~"), "/etc"):
    print(folder, oct(os.stat(folder).st_mode))
    show(folder)
print(sorted(os.environ.items()), os.getcwd(), sorted(os.listdir("/")))
print([name for name in os.listdir("/proc") if name.isdigit()])
print([resource.getrlimit(number) for number in range(16)])
print(open("/proc/sysvipc/shm").read(), os.listdir("/dev"))
print(subprocess.check_output(["git", "status", "--porcelain", "--ignored"]))
print(subprocess.check_output(["git", "log", "--format=%H %D"]))
"""

    def look(self, commit: str) -> str:
        ended = run_python(self.place.open(self.place.check_out(commit)), self.LOOK)
        self.assertEqual(0, ended.status, ended.output)
        return ended.output

    def test_the_next_run_is_as_if_the_hostile_one_had_never_been(self) -> None:
        files = {
            ".gitignore": "ignored\n",
            "app.py": "x = 1\n",
            "package/__init__.py": "",
            "package/data": "1",
        }
        commit = self.place.origin.commit("Mine", files)
        first = self.look(commit)
        tree = tree_of(self.place.path)
        ended = self.attack("hostile_leaves_everything", str(self.outside))
        self.assertEqual((0, ""), ended[:2])
        self.assertEqual(first, self.look(commit))
        self.assertEqual(tree, tree_of(self.place.path))
        self.assertEqual([], list(self.outside.iterdir()))
