from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from ciapp.errors import SandboxError
from ciapp.settings import Limits
from ciapp.testing import bubblewrap
from ciapp.testing import sandbox as sandbox_module
from ciapp.testing.processes import list_tree
from ciapp.testing.sandbox import (
    SandboxSetting,
    check_level,
    describe_level,
    find_level,
    identity_in,
    open_sandbox,
    sandbox_level,
    warn_of_root,
)
from ciapp.testing.slot import take_slot
from tests.support.git_repositories import new_folder
from tests.support.processes import processes_with
from tests.support.sandboxes import (
    HAS_BUBBLEWRAP,
    PYTHON,
    WEAK,
    Place,
    alone_with_memory,
    needs_bubblewrap,
    open_descriptors,
    open_interpreter,
    run_python,
    start_python,
    wait_for_end,
    wait_until,
)

BWRAP = shutil.which("bwrap")
ROOT = os.geteuid() == 0
NOBODY = 65534
TREE = Path(__file__).resolve().parent.parent


class TestWeakLevel(unittest.TestCase):
    """What holds at both levels; the strong one adds to it below."""

    setting: SandboxSetting = WEAK

    place: Place
    commit: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.place = Place(cls, cls.setting)
        cls.commit = cls.place.origin.commit("One file", {"app.py": "x = 1\n"})

    def setUp(self) -> None:
        self.checkout = self.place.check_out(self.commit)
        self.sandbox = self.place.open(self.checkout)

    def run_script(self, script: str, *arguments: str) -> str:
        ended = run_python(self.sandbox, textwrap.dedent(script), *arguments)
        self.assertEqual(0, ended.status, ended.output)
        return ended.output.rstrip("\n")

    def start(
        self, script: str, *arguments: str, output: int | None = None
    ) -> sandbox_module.SandboxedProcess:
        with tempfile.TemporaryFile() as unread:
            process = start_python(
                self.sandbox,
                textwrap.dedent(script),
                *arguments,
                stdout=unread.fileno() if output is None else output,
            )
        self.addCleanup(process.kill)
        return process

    def start_and_wait_for_line(self, script: str, *arguments: str) -> sandbox_module.SandboxedProcess:
        """Start a script and return when it has printed something."""
        reader, writer = os.pipe()
        process = self.start(script, *arguments, output=writer)
        os.close(writer)
        with os.fdopen(reader) as lines:
            self.assertNotEqual("", lines.readline())
        return process

    def test_the_program_starts_in_the_checkout(self) -> None:
        self.assertEqual(
            f"{self.sandbox.checkout} ['.git', 'app.py']",
            self.run_script("import os; print(os.getcwd(), sorted(os.listdir()))"),
        )

    def test_the_checkout_is_writable_and_its_files_belong_to_the_program(self) -> None:
        self.run_script(
            """
            import os, pathlib
            assert pathlib.Path("app.py").stat().st_uid == os.getuid()
            pathlib.Path("app.py").write_text("x = 2")
            pathlib.Path("new").mkdir()
            """
        )
        path = self.place.slot.path / "checkouts" / "team"
        self.assertEqual("x = 2", (path / "app.py").read_text())
        self.assertTrue((path / "new").is_dir())

    def test_the_exit_status_is_the_programs(self) -> None:
        for code, expected in (("sys.exit(0)", 0), ("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", -9)):
            ended = run_python(self.sandbox, f"import os, sys; {code}")
            self.assertEqual(expected, ended.status, ended.output)
        self.assertEqual(-11, run_python(self.sandbox, "import os; os.kill(os.getpid(), 11)").status)

    def test_poll_says_none_while_the_program_runs(self) -> None:
        process = self.start("import time; time.sleep(60)")
        self.assertIsNone(process.poll())
        self.assertIsNone(process.wait(0.01))
        process.kill()
        self.assertEqual(-9, process.poll())

    def test_nothing_of_our_environment_is_inherited(self) -> None:
        os.environ["CIAPP_DATABASE_URL"] = "postgresql://user:secret@db"
        self.addCleanup(os.environ.pop, "CIAPP_DATABASE_URL")
        with tempfile.TemporaryFile() as output:
            process = start_python(
                self.sandbox,
                "import json, os; print(json.dumps(dict(os.environ)))",
                stdout=output.fileno(),
                environment={"A": "b=c\nd"},
            )
            wait_for_end(process)
            output.seek(0)
            found = json.loads(output.read())
        found.pop("PWD", None)
        self.assertEqual("b=c\nd", found.pop("A"))
        self.assertEqual({"PATH", "HOME", "TMPDIR", "LANG", "USER", "LOGNAME", "CI", "CIAPP"}, set(found))

    def test_variables_reach_the_program_and_nothing_that_starts_it(self) -> None:
        # What starts the program may be root, and these two are code: the loader names each program that
        # it fails to load this into.
        names = ("setpriv", "env", "sh", "bwrap", "guard.py")
        checkout = self.place.commit({f"bin/{name}": f"#!/bin/sh\necho {name} ran >&2\n" for name in names})
        for name in names:
            (self.place.path / "bin" / name).chmod(0o755)
        sandbox = self.place.open(checkout)
        own = {"LD_PRELOAD": "/nowhere/code.so", "PATH": f"{sandbox.checkout}/bin", "PYTHONHOME": "/nowhere"}
        with tempfile.TemporaryFile() as output:
            process = start_python(sandbox, "pass", stdout=output.fileno(), environment=own)
            self.assertEqual(0, wait_for_end(process).status)
            output.seek(0)
            said = output.read().decode()
        self.assertEqual(1, said.count("cannot be preloaded"), said)
        self.assertEqual(1, len(said.splitlines()), said)

    def test_home_and_tmpdir_are_writable_and_new_for_each_program(self) -> None:
        script = """
            import os, pathlib
            for folder in (os.environ["HOME"], os.environ["TMPDIR"]):
                assert os.listdir(folder) == [], os.listdir(folder)
                pathlib.Path(folder, "left").write_text("over")
            """
        self.run_script(script)
        self.run_script(script)

    def test_descriptors_are_handed_over_under_their_numbers_and_no_others(self) -> None:
        reader, writer = os.pipe()
        unrelated, unrelated_end = os.pipe()
        os.set_inheritable(unrelated, True)
        script = """
            import os, sys
            os.write(int(sys.argv[1]), b"event")
            def is_open(number):
                try:
                    os.fstat(number)
                except OSError:
                    return False
                return True
            print([number for number in range(200) if is_open(number)])
            """
        with tempfile.TemporaryFile() as output:
            process = start_python(
                self.sandbox,
                textwrap.dedent(script),
                str(writer),
                stdout=output.fileno(),
                pass_fds=[writer],
            )
            os.close(writer)
            wait_for_end(process)
            output.seek(0)
            shown = json.loads(output.read())
        self.assertEqual(b"event", os.read(reader, 100))
        self.assertEqual(b"", os.read(reader, 100), "somebody still holds the other end")
        self.assertEqual([0, 1, 2, writer], shown)
        for descriptor in (reader, unrelated, unrelated_end):
            os.close(descriptor)

    def test_standard_input_is_empty(self) -> None:
        self.assertEqual("''", self.run_script("import sys; print(repr(sys.stdin.read()))"))

    def test_signals_that_the_worker_ignores_have_their_default_effect(self) -> None:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGINT, previous)
        ignored = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
        self.assertEqual("True", self.run_script(ignored))
        self.assertIs(signal.SIG_IGN, signal.getsignal(signal.SIGINT))

    def test_a_signal_reaches_the_program_and_not_what_it_started(self) -> None:
        process = self.start_and_wait_for_line(
            """
            import signal, subprocess, sys
            child = subprocess.Popen(["sleep", "60"])
            def on_signal(*_):
                sys.exit(5 if child.poll() is None else 6)
            signal.signal(signal.SIGUSR1, on_signal)
            print("ready", flush=True)
            signal.pause()
            """
        )
        process.signal(signal.SIGUSR1)
        self.assertEqual(5, process.wait(20))
        process.signal(signal.SIGUSR1)

    def test_what_the_program_started_ends_with_it(self) -> None:
        mark = f"daemon-{uuid.uuid4()}"
        self.run_script(
            """
            import os, subprocess, sys
            for _ in range(3):
                subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", sys.argv[1]],
                    start_new_session=True)
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.execvp("sh", ["sh", "-c", "sleep 300; echo $0", sys.argv[1]])
            """,
            mark,
        )
        self.assertEqual([], processes_with(mark))

    def test_kill_returns_when_no_process_is_left(self) -> None:
        mark = f"daemon-{uuid.uuid4()}"
        process = self.start_and_wait_for_line(
            """
            import os, signal, subprocess, sys, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            for _ in range(5):
                subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM; sleep 300 # $0", sys.argv[1]])
            print("ready", flush=True)
            time.sleep(300)
            """,
            mark,
        )
        self.assertTrue(wait_until(lambda: len(processes_with(mark)) >= 5))
        process.kill()
        self.assertEqual([], processes_with(mark))

    def test_everything_ends_when_the_process_that_started_it_is_killed(self) -> None:
        mark = f"orphan-{uuid.uuid4()}"
        reader, writer = os.pipe()
        worker = os.fork()
        if worker == 0:
            try:
                self.start(
                    f"""
                    import subprocess, time
                    subprocess.Popen(["setsid", "sh", "-c", "echo ready; sleep 300; echo {mark}"])
                    time.sleep(300)
                    """,
                    output=writer,
                )
                signal.pause()
            finally:
                os._exit(1)
        os.close(writer)
        with os.fdopen(reader) as lines:
            self.assertEqual("ready\n", lines.readline())
        self.assertGreaterEqual(len(processes_with(mark)), 2)
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        self.assertTrue(wait_until(lambda: not processes_with(mark), 2.0), processes_with(mark))

    def test_a_group_kill_reaches_nobody_else(self) -> None:
        self.assertEqual(-9, run_python(self.sandbox, "import os; os.killpg(0, 9)").status)

    @alone_with_memory()
    def test_a_process_may_not_take_more_memory_than_allowed(self) -> None:
        self.sandbox = self.place.open(self.checkout, limits=Limits(memory_mib=300))
        self.assertIn("MemoryError", run_python(self.sandbox, "bytearray(400 << 20)").output)
        self.assertEqual("", self.run_script("bytearray(100 << 20)"))

    @alone_with_memory()
    def test_reserving_address_space_is_no_use_of_memory(self) -> None:
        self.sandbox = self.place.open(self.checkout, limits=Limits(memory_mib=300))
        self.run_script("import mmap; mmap.mmap(-1, 4 << 30, prot=mmap.PROT_READ)")

    @alone_with_memory()
    def test_memory_of_all_processes_together_is_a_breach(self) -> None:
        self.sandbox = self.place.open(self.checkout, limits=Limits(memory_mib=300))
        script = """
            import os, time
            for _ in range(4):
                if os.fork() == 0:
                    held = b"x" * (100 << 20)
                    time.sleep(60)
            time.sleep(60)
            """
        ended = run_python(self.sandbox, textwrap.dedent(script))
        self.assertRegex(ended.breach, r"^the run uses \d+ MiB of memory; 300 are allowed$")

    @alone_with_memory()
    def test_memory_that_processes_share_counts_once(self) -> None:
        self.sandbox = self.place.open(self.checkout, limits=Limits(memory_mib=300))
        script = """
            import os, time
            held = b"x" * (150 << 20)
            for _ in range(4):
                if os.fork() == 0:
                    time.sleep(1)
                    os._exit(0)
            for _ in range(4):
                os.wait()
            """
        ended = run_python(self.sandbox, textwrap.dedent(script))
        self.assertEqual((0, ""), (ended.status, ended.breach), ended.output)

    def test_a_file_may_not_grow_beyond_its_limit(self) -> None:
        self.sandbox = self.place.open(self.checkout, limits=Limits(file_mib=2))
        script = (
            "open('big', 'wb', buffering=0).write(bytes(2 << 20)); open('big', 'ab', buffering=0).write(b'x')"
        )
        self.assertIn("File too large", run_python(self.sandbox, script).output)

    def test_disk_that_many_files_fill_is_a_breach(self) -> None:
        self.sandbox = self.place.open(self.checkout, limits=Limits(file_mib=20, disk_mib=50))
        script = """
            import pathlib, time
            for number in range(5):
                pathlib.Path(str(number)).write_bytes(bytes(19 << 20))
            time.sleep(60)
            """
        ended = run_python(self.sandbox, textwrap.dedent(script))
        self.assertRegex(ended.breach, r"^the run uses \d+ MiB of disk; 50 are allowed$")

    def test_disk_in_folders_that_are_closed_or_too_deep_is_a_breach(self) -> None:
        self.sandbox = self.place.open(self.checkout, limits=Limits(file_mib=20, disk_mib=50))
        script = """
            import os, pathlib, sys, time
            for _ in range(1 if sys.argv[1] == "closed" else 3000):
                os.mkdir("deep")
                os.chdir("deep")
            for number in range(15):  # so that what others free meanwhile hides none of it
                pathlib.Path(str(number)).write_bytes(bytes(19 << 20))
            os.chmod(".", 0)
            time.sleep(60)
            """
        self.addCleanup(self.place.check_out, self.commit)
        for way in ("closed", "deep"):
            with self.subTest(way):
                self.place.check_out(self.commit)
                ended = run_python(self.sandbox, textwrap.dedent(script), way)
                self.assertRegex(ended.breach, r"^the run uses \d+ MiB of disk; 50 are allowed$")

    def test_disk_in_deep_folders_is_a_breach_while_others_free_more(self) -> None:
        self.sandbox = self.place.open(self.checkout, limits=Limits(file_mib=20, disk_mib=50))
        script = """
            import os, pathlib, time
            for _ in range(3000):
                os.mkdir("deep")
                os.chdir("deep")
            for number in range(5):
                pathlib.Path(str(number)).write_bytes(bytes(19 << 20))
            time.sleep(60)
            """
        self.addCleanup(self.place.check_out, self.commit)
        elsewhere = self.place.state / "elsewhere"
        elsewhere.write_bytes(bytes(300 << 20))
        os.sync()
        open_before = open_descriptors()
        with tempfile.TemporaryFile() as output:
            process = start_python(self.sandbox, textwrap.dedent(script), stdout=output.fileno())
            elsewhere.unlink()
            ended = wait_for_end(process)
        del process
        self.assertEqual(open_before, open_descriptors())
        self.assertRegex(ended.breach, r"^the run uses \d+ MiB of disk; 50 are allowed$")

    def test_disk_that_files_without_a_name_fill_is_a_breach(self) -> None:
        self.sandbox = self.place.open(self.checkout, limits=Limits(file_mib=20, disk_mib=50))
        script = """
            import os, time
            for number in range(5):
                file = os.open("held", os.O_CREAT | os.O_RDWR)
                os.write(file, bytes(19 << 20))
                os.unlink("held")
            time.sleep(60)
            """
        ended = run_python(self.sandbox, textwrap.dedent(script))
        self.assertRegex(ended.breach, r"^the run uses \d+ MiB of disk; 50 are allowed$")

    def test_processor_time_is_limited(self) -> None:
        self.sandbox = self.place.open(self.checkout, limits=Limits(cpu_s=1))
        self.assertEqual(-signal.SIGXCPU, run_python(self.sandbox, "while True: pass").status)

    def test_no_core_is_dumped(self) -> None:
        limit = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
        self.assertEqual("(0, 0)", self.run_script(limit))

    def test_privileges_cannot_be_gained_back(self) -> None:
        self.assertIn("NoNewPrivs:\t1", self.run_script("print(open('/proc/self/status').read())"))

    def test_threads_and_processes_are_made_as_ever(self) -> None:
        # The filter takes clone3 away, which libraries try first.
        self.run_script(
            """
            import asyncio, multiprocessing, os, subprocess, sys, threading
            for number in range(20):
                thread = threading.Thread(target=int)
                thread.start()
                thread.join()
            for method in ("fork", "spawn", "forkserver"):
                process = multiprocessing.get_context(method).Process(target=int)
                process.start()
                process.join()
                assert process.exitcode == 0
            assert subprocess.call(["true"]) == 0 and os.system("exit 3") >> 8 == 3
            assert subprocess.check_output(["sh", "-c", "echo $(echo hello)"]) == b"hello\\n"
            child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 4"], os.environ)
            assert os.waitpid(child, 0)[1] >> 8 == 4
            async def start():
                return await (await asyncio.create_subprocess_exec("true")).wait()
            assert asyncio.run(start()) == 0
            """
        )

    def test_the_test_processes_are_the_first_to_go_when_memory_runs_out(self) -> None:
        self.assertEqual("1000", self.run_script("print(open('/proc/self/oom_score_adj').read())"))

    def test_a_program_that_is_not_there_is_our_failure(self) -> None:
        with self.assertRaisesRegex(SandboxError, "/nowhere/python is needed in the sandbox"):
            self.sandbox.start(["/nowhere/python"], environment={}, stdout=1, stderr=2)

    def test_git_tells_a_program_of_its_checkout(self) -> None:
        self.place.origin.git("tag", "-a", "-m", "One", "v1.0")
        self.sandbox = self.place.open(self.place.commit({"more.py": ""}))
        script = """
            import subprocess
            for words in ("describe --tags", "status --porcelain", "log --format=%s"):
                print(subprocess.check_output(["git", *words.split()], text=True).strip())
            """
        described, status, *subjects = self.run_script(script).split("\n")
        self.assertRegex(described, "^v1.0-1-g")
        self.assertEqual(("", self.place.origin.git("log", "--format=%s").split("\n")), (status, subjects))
        self.assertEqual(("Change", "One file"), (subjects[0], subjects[-1]))

    def test_no_descriptor_of_ours_is_left_open(self) -> None:
        before = open_descriptors()
        for script in ("pass", "import os; os.abort()"):
            run_python(self.sandbox, script)
        self.assertEqual(before, open_descriptors())


@needs_bubblewrap
class TestBubblewrap(TestWeakLevel):
    setting = "required"

    def test_the_checkout_has_the_same_path_in_each_slot(self) -> None:
        self.assertEqual(Path("/checkout"), self.sandbox.checkout)

    def test_the_program_is_neither_root_nor_has_capabilities(self) -> None:
        status = self.run_script("print(open('/proc/self/status').read())")
        self.assertEqual({"0000000000000000"}, set(re.findall(r"^Cap\w+:\t(\w+)$", status, re.MULTILINE)))
        [uids] = re.findall(r"^Uid:\t(.*)$", status, re.MULTILINE)
        self.assertEqual({self.place.slot.identity.uid}, set(map(int, uids.split())))
        self.assertNotIn(0, map(int, uids.split()))

    def test_the_system_is_read_only(self) -> None:
        script = """
            import pathlib
            for folder in ("/", "/usr/bin", "/etc", "/dev", "/var", "/run", "/objects"):
                try:
                    pathlib.Path(folder, "written").write_text("")
                except OSError:
                    continue
                print("could write to", folder)
            """
        self.assertEqual("", self.run_script(script))

    def test_files_of_the_host_are_out_of_sight(self) -> None:
        script = """
            import os, sys
            for path in sys.argv[1:]:
                print(path, os.path.exists(path))
            """
        hidden = [
            str(self.place.state),
            str(TREE),
            "/etc/shadow",
            "/var/lib",
            "/opt",
            "/boot",
            "/home/nobody",
        ]
        shown = self.run_script(script, *hidden)
        self.assertEqual([f"{path} False" for path in hidden], shown.split("\n"))

    def test_only_its_own_processes_are_seen(self) -> None:
        script = "import os; print(sorted(int(name) for name in os.listdir('/proc') if name.isdigit()))"
        self.assertEqual("[1, 2]", self.run_script(script))

    def test_the_first_process_tells_nothing_of_the_host(self) -> None:
        shown = self.run_script("print(open('/proc/1/cmdline').read())")
        self.assertNotIn(str(self.place.state), shown)

    def test_users_are_named(self) -> None:
        script = """
            import getpass, grp, os, pwd, socket
            me = pwd.getpwuid(os.getuid())
            print(me.pw_name, me.pw_dir == os.path.expanduser("~"), grp.getgrgid(os.getgid()).gr_name)
            print(pwd.getpwnam("root").pw_uid, getpass.getuser())
            print(socket.gethostname(), socket.gethostbyname("ciapp"))
            """
        self.assertEqual("ciapp True ciapp\n0 ciapp\nciapp 127.0.0.1", self.run_script(script))

    def test_loopback_is_up_and_leads_nowhere_else(self) -> None:
        script = """
            import socket
            server = socket.create_server(("127.0.0.1", 0))
            socket.create_connection(server.getsockname()).close()
            print([name for _, name in socket.if_nameindex()])
            """
        self.assertEqual("['lo']", self.run_script(script))

    def test_the_network_is_there_when_it_is_granted(self) -> None:
        self.sandbox = self.place.open(self.checkout, network=True)
        script = "import os; print(os.readlink('/proc/self/ns/net'))"
        self.assertEqual(str(Path("/proc/self/ns/net").readlink()), self.run_script(script))

    def test_fixed_paths_in_tmp_are_private(self) -> None:
        left = Path("/tmp") / f"ciapp-{uuid.uuid4()}"
        self.run_script("import sys; open(sys.argv[1], 'w')", str(left))
        self.assertFalse(left.exists())

    @alone_with_memory()
    def test_memory_file_systems_are_limited_and_count_as_memory(self) -> None:
        self.sandbox = self.place.open(self.checkout, limits=Limits(memory_mib=64))
        script = textwrap.dedent(
            """
            import pathlib
            for folder in ("/tmp", "/dev/shm", pathlib.Path.home()):
                big = pathlib.Path(folder, "big")
                try:
                    big.write_bytes(bytes(40 << 20))
                except OSError as error:
                    print(error.strerror)
                big.unlink()
            """
        )
        ended = run_python(self.sandbox, script)
        self.assertEqual(["No space left on device"] * 3, ended.output.splitlines())
        script = """
            import pathlib, time
            pathlib.Path("/tmp/big").write_bytes(bytes(30 << 20))
            pathlib.Path("/dev/shm/big").write_bytes(bytes(15 << 20))
            pathlib.Path.home().joinpath("big").write_bytes(bytes(15 << 20))
            time.sleep(60)
            """
        ended = run_python(self.sandbox, textwrap.dedent(script))
        self.assertRegex(ended.breach, "MiB of memory; 64 are allowed")

    def test_processes_are_limited(self) -> None:
        self.sandbox = self.place.open(self.checkout, limits=Limits(processes=20))
        script = """
            import os, time
            count = 0
            try:
                while True:
                    if os.fork() == 0:
                        time.sleep(60)
                    count += 1
            except BlockingIOError:
                print(count)
            """
        self.assertIn(int(self.run_script(script)), range(15, 21))

    def test_a_worker_that_is_killed_in_the_middle_of_a_start_leaves_nothing(self) -> None:
        # bubblewrap is tied to its worker bit by bit; each of these moments is one of the worst.
        process = bubblewrap.BubblewrapProcess
        moments = ((process, "__init__"), (process, "_meet_reaper"), (bubblewrap, "set_limits"))
        for number, (owner, name) in enumerate(moments * 4):
            with self.subTest(name, number=number):
                mark = f"unborn-{uuid.uuid4()}"
                self.kill_a_worker_at(owner, name, mark)
                left = functools.partial(processes_with, mark)
                self.assertTrue(wait_until(lambda left=left: not left(), 2.0), left())
                self.assertFalse((self.place.path / mark).exists())

    def kill_a_worker_at(self, owner: object, name: str, mark: str) -> None:
        """A worker with a slot of its own, killed where it calls a function of bubblewrap's."""

        def die(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        worker = os.fork()
        if worker == 0:
            try:
                setattr(owner, name, die)
                slot = take_slot(self.place.state)
                sandbox = open_sandbox(slot, self.checkout, Limits(), setting=self.setting)
                with tempfile.TemporaryFile() as unread:
                    start_python(sandbox, f"open({mark!r}, 'w')", stdout=unread.fileno())
            finally:
                os._exit(1)
        self.assertEqual(signal.SIGKILL, os.waitpid(worker, 0)[1])

    def test_a_sandbox_that_is_killed_from_outside_says_nothing_of_its_program(self) -> None:
        process = self.start_and_wait_for_line("import time; print('up', flush=True); time.sleep(60)")
        os.kill(process._process.pid, signal.SIGKILL)
        with self.assertRaisesRegex(SandboxError, "^a sandbox was ended by SIGKILL from outside; "):
            process.wait(10.0)
        process.kill()

    def test_no_process_that_tests_could_make_call_for_them_is_without_the_filter(self) -> None:
        # An ordinary user's reaper can be traced by the tests; root's cannot.
        process = self.start_and_wait_for_line("import time; print('up', flush=True); time.sleep(60)")
        for pid in list_tree(process._reaper)[1 if ROOT else 0 :]:
            self.assertIn("Seccomp:\t2\n", Path(f"/proc/{pid}/status").read_text())

    def test_terminals_can_be_made(self) -> None:
        self.run_script("import pty; pty.openpty()")

    def test_the_interpreters_folder_is_read_only_wherever_it_stands(self) -> None:
        script = """
            import os, sys
            for folder in sys.argv[1:]:
                assert os.listdir(folder)
                assert not os.access(folder, os.W_OK)
            """
        self.run_script(script, *map(str, PYTHON.readable))

    def test_a_state_folder_that_is_closed_to_others_is_no_hindrance(self) -> None:
        self.place.state.chmod(0o700)
        self.assertEqual("1", self.run_script("print(len(open('app.py').readlines()))"))

    def test_a_setting_that_requires_it_is_met(self) -> None:
        self.assertEqual("bubblewrap", sandbox_level("required"))
        self.assertEqual("bubblewrap", self.sandbox.level)


class TestLevels(unittest.TestCase):
    def setUp(self) -> None:
        sandbox_module._bubblewrap_complaint.cache_clear()
        self.addCleanup(sandbox_module._bubblewrap_complaint.cache_clear)
        self.bin = new_folder(self)
        path = os.environ["PATH"]
        os.environ["PATH"] = str(self.bin)
        self.addCleanup(os.environ.__setitem__, "PATH", path)
        bubblewrap.bubblewrap_program.cache_clear()
        self.addCleanup(bubblewrap.bubblewrap_program.cache_clear)

    def test_without_bubblewrap_limits_are_what_there_is(self) -> None:
        level = find_level("auto")
        self.assertEqual("limits", level.name)
        self.assertEqual("bubblewrap is not installed; install the package `bubblewrap`", level.reason)
        self.assertIn(level.reason, describe_level(level, self.bin))

    def test_required_is_refused_with_the_reason(self) -> None:
        with self.assertRaisesRegex(SandboxError, '^sandbox is "required" .*is not installed'):
            sandbox_level("required")

    def test_a_bubblewrap_that_fails_is_quoted(self) -> None:
        program = self.bin / "bwrap"
        program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a namespace' >&2\nexit 1\n")
        program.chmod(0o755)
        level = find_level("auto")
        self.assertEqual(
            ("limits", "bwrap: No permissions to create a namespace"), (level.name, level.reason)
        )

    @needs_bubblewrap
    def test_a_bubblewrap_that_failed_for_a_moment_is_asked_again(self) -> None:
        program, mark = self.bin / "bwrap", self.bin / "asked"
        program.write_text(
            f'#!/bin/sh\n[ -e {mark} ] && exec {BWRAP} "$@"\n'
            f': >{mark}\necho "bwrap: Out of memory" >&2\nexit 1\n'
        )
        program.chmod(0o755)
        self.assertEqual("bubblewrap", find_level("auto").name)
        self.assertTrue(mark.exists())

    def test_off_asks_for_no_bubblewrap(self) -> None:
        self.assertEqual("limits", sandbox_level("off"))


@unittest.skipUnless(ROOT, "nobody but root is root")
class TestTestsThatWouldBeRoot(unittest.TestCase):
    REFUSAL = "^tests would be root on this host, because .*{} is closed to other users; install bubblewrap, "

    def setUp(self) -> None:
        self.place = Place(self, "off")
        self.state = self.place.state
        self.state.parent.chmod(0o755)
        self.interpreter = new_folder(self) / "python"
        self.interpreter.parent.chmod(0o755)
        hidden = patch.object(sandbox_module, "_interpreter", lambda: self.interpreter)
        hidden.start()
        self.addCleanup(hidden.stop)

    def test_they_are_refused_where_the_state_folder_is_closed(self) -> None:
        self.state.chmod(0o700)
        with self.assertRaisesRegex(SandboxError, self.REFUSAL.format(self.state)):
            check_level("off", self.state)
        with self.assertRaisesRegex(SandboxError, self.REFUSAL.format(self.state)):
            self.place.commit({"app.py": ""})

    def test_they_are_refused_where_python_is_closed(self) -> None:
        self.interpreter.parent.chmod(0o700)
        with self.assertRaisesRegex(SandboxError, self.REFUSAL.format(self.interpreter.parent)):
            check_level("off", self.state)

    def test_they_are_somebody_else_where_both_are_open(self) -> None:
        for setting in ("off", "off-as-root"):
            self.assertEqual("limits", check_level(setting, self.state).name)
            self.assertTrue(identity_in(find_level(setting), self.place.slot).is_own)
            self.assertEqual("", warn_of_root(setting, self.place.slot))

    def test_a_setting_lets_them_be_root_and_is_warned_of(self) -> None:
        self.state.chmod(0o700)
        level = check_level("off-as-root", self.state)
        self.assertEqual("limits", level.name)
        self.assertIn("as root, because", describe_level(level, self.state))
        self.assertIn("the tests were root on this host", warn_of_root("off-as-root", self.place.slot))


@unittest.skipUnless(ROOT, "only root can become somebody else")
class TestOtherUsers(unittest.TestCase):
    """The same facts for workers of other kinds, in processes of their own."""

    LEVELS = ("test_sandbox.TestBubblewrap", "test_sandbox.TestWeakLevel")
    CHECKOUTS = ("test_slot", "test_mirror", "test_checkout", "test_submodules")
    ATTACKS = tuple(
        f"test_hostile.{name}"
        for name in ("TestSecrets", "TestHost", "TestAfterwards", "TestProcesses", "TestMemory")
    )
    #: Parts of names of what takes as long as all the rest, whoever runs it.
    LONG = (
        *("test_disk_in_", "test_memory_that_the_kernel_holds_", "test_folders_too_deep_"),
        "TestNothingIsLeftAtTheWeakLevel",
    )

    def run_tests(self, names: Iterable[str], *, uid: int) -> str:
        """Run tests to their end as somebody else; returns what unittest says of each."""
        python = open_interpreter()
        if python is None:
            self.skipTest("every Python of this version is closed to other users")
        done = subprocess.run(
            [str(python), "-B", "-m", "unittest", "-v", *names],
            cwd=TREE,
            user=uid,
            group=uid,
            extra_groups=[],
            env={
                "HOME": "/nonexistent",
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertRegex(done.stderr, r"\nRan [1-9]")
        return done.stderr

    def quick(self, groups: Iterable[str]) -> list[str]:
        """The tests of modules and classes, without those that take long."""
        return [name for name in names_of_tests(groups) if not any(part in name for part in self.LONG)]

    def test_an_ordinary_user_has_both_levels(self) -> None:
        said = self.run_tests(self.quick(self.LEVELS), uid=NOBODY)
        if HAS_BUBBLEWRAP:
            self.assertNotIn("skipped", said)

    @pytest.mark.slow  # each test as an ordinary user lays out a few of its own
    def test_an_ordinary_user_has_checkouts(self) -> None:
        self.run_tests(self.quick(self.CHECKOUTS), uid=NOBODY)

    def test_an_ordinary_user_is_attacked_in_vain(self) -> None:
        self.run_tests(self.quick(self.ATTACKS), uid=NOBODY)

    @pytest.mark.slow
    def test_an_ordinary_user_has_what_takes_long_too(self) -> None:
        groups = (*self.LEVELS, *self.CHECKOUTS, *self.ATTACKS)
        long = set(names_of_tests(groups)) - set(self.quick(groups))
        self.assertGreaterEqual(len(long), len(self.LONG))
        self.run_tests(sorted(long), uid=NOBODY)

    def test_root_steps_down_at_the_weak_level_where_files_can_be_reached(self) -> None:
        self.run_tests(["tests.test_sandbox.TestSteppingDown"], uid=0)


@unittest.skipUnless(
    ROOT and open_interpreter() == Path(sys.executable).resolve(), "this Python is closed to other users"
)
class TestSteppingDown(unittest.TestCase):
    def test_the_program_has_the_slots_identity(self) -> None:
        place = Place(self, "off")
        place.state.parent.chmod(0o755)
        sandbox = place.open(place.commit({"app.py": ""}))
        script = """
import os
open("written", "w").close()
try:
    os.listdir("../../git")
except PermissionError:
    print(os.getuid(), os.getgid(), os.getgroups(), os.stat("app.py").st_uid)
"""
        uid = place.slot.identity.uid
        self.assertEqual(f"{uid} {uid} [] {uid}\n", run_python(sandbox, script).output)
        self.assertIn("as a user of the slot's own", describe_level(find_level("off"), place.state))
        place.commit({"app.py": "x"})
        self.assertFalse((place.path / "written").exists())

    def test_what_a_program_leaves_where_everybody_may_write_is_gone_with_it(self) -> None:
        place = Place(self, "off")
        place.state.parent.chmod(0o755)
        outside = new_folder(self)
        outside.chmod(0o777)
        (outside / "kept").touch()
        mark = f"left-{uuid.uuid4()}"
        script = """
import ctypes, os, sys
mark, outside, folders = sys.argv[1], sys.argv[2], sys.argv[3:]
for folder in folders:
    print(folder, [name for name in os.listdir(folder) if name.startswith(mark)])
    os.symlink(outside, f"{folder}/{mark}-link")
    os.symlink(f"{outside}/kept", f"{folder}/{mark}-link-to-file")
    open(f"{folder}/{mark}", "w").close()
    os.makedirs(f"{folder}/{mark}-folder/closed")
    os.symlink(outside, f"{folder}/{mark}-folder/closed/link")
    os.chmod(f"{folder}/{mark}-folder/closed", 0)
libc = ctypes.CDLL(None)
key = int(mark[5:12], 16)
print(libc.shmget(key, 56, 0), libc.semget(key, 1, 0))
assert libc.shmget(key, 56, 0o1600) >= 0 and libc.semget(key, 1, 0o1600) >= 0
"""
        folders = ["/tmp", "/var/tmp", "/dev/shm"]
        sandbox = place.open(place.commit({"app.py": ""}))
        of_a_killed_worker = Path("/tmp") / f"{mark}-old"
        of_a_killed_worker.touch()
        os.chown(of_a_killed_worker, place.slot.identity.uid, place.slot.identity.gid)
        clean = "".join(f"{folder} []\n" for folder in folders) + "-1 -1\n"
        for _ in range(2):
            self.assertEqual((0, clean, ""), run_python(sandbox, script, mark, str(outside), *folders))
        left = [file for folder in folders for file in Path(folder).iterdir() if file.name.startswith(mark)]
        self.assertEqual(([], ["kept"]), (left, [file.name for file in outside.iterdir()]))

    def test_what_a_program_writes_where_everybody_may_write_counts_as_disk(self) -> None:
        place = Place(self, "off")
        place.state.parent.chmod(0o755)
        attack = (TREE / "tests/samples/hostile_fills_the_disk/attack.py").read_text("utf-8")
        for folder in ("/dev/shm", "/var/tmp"):
            with self.subTest(folder):
                sandbox = place.open(place.commit({"app.py": ""}), limits=Limits(disk_mib=50))
                ended = run_python(sandbox, attack, folder, "300", within_s=20)
                self.assertRegex(ended.breach, r"^the run uses \d+ MiB of disk; 50 are allowed$")

    def test_a_guard_that_is_killed_from_outside_says_nothing_of_its_program_and_leaves_nothing(self) -> None:
        place = Place(self, "off")
        place.state.parent.chmod(0o755)
        mark = f"guarded-{uuid.uuid4()}"
        with tempfile.TemporaryFile() as unread:
            sandbox = place.open(place.commit({"app.py": ""}))
            process = start_python(sandbox, "import time; time.sleep(60)", mark, stdout=unread.fileno())
        os.kill(process._guard.pid, signal.SIGKILL)
        with self.assertRaisesRegex(SandboxError, "^a guard was ended by SIGKILL from outside; "):
            process.wait(10.0)
        process.kill()
        self.assertTrue(wait_until(lambda: not processes_with(mark), 2.0), processes_with(mark))


def names_of_tests(groups: Iterable[str]) -> list[str]:
    """The tests of modules and classes in this folder, by the names that unittest takes, in its order."""
    suite = unittest.defaultTestLoader.loadTestsFromNames([f"tests.{group}" for group in groups])
    return [test.id() for test in find_tests(suite)]


def find_tests(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Those of a suite and of all suites in it."""
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from find_tests(one)
        else:
            yield one
