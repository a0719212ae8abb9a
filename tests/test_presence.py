"""ciapp/intake/presence.py together with the hook that reads its marks."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
import threading
import time

from ciapp.intake.presence import Presence, is_dispatcher_alive
from ciapp.intake.spool import spool_folder
from tests.support.git_repositories import new_bare_repository
from tests.support.hooked import HookedTest, wait_until

OTHER_DISPATCHER = """
import sys
from pathlib import Path
from ciapp.intake.presence import Presence
presence = Presence()
presence.announce(Path(sys.argv[1]))
print("announced", flush=True)
sys.stdin.read()
presence.close()
"""


class TestPresence(HookedTest):
    def setUp(self) -> None:
        super().setUp()
        self.install()
        self.home = self.bare / "ciapp"

    def new_presence(self) -> Presence:
        presence = Presence()
        self.addCleanup(presence.close)
        return presence

    def start_other(self) -> subprocess.Popen[bytes]:
        """A dispatcher in a process of its own, which has announced itself."""
        other = subprocess.Popen(
            [sys.executable, "-c", OTHER_DISPATCHER, str(self.bare)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        assert other.stdin is not None
        assert other.stdout is not None
        self.addCleanup(other.stdout.close)
        self.addCleanup(other.stdin.close)
        self.assertEqual(b"announced\n", other.stdout.readline())
        return other

    def test_a_push_wakes_the_dispatcher_of_its_repository(self) -> None:
        presence = self.new_presence()
        quiet = new_bare_repository(self)
        self.install(quiet)
        self.assertTrue(presence.announce(self.bare))
        self.assertTrue(presence.announce(quiet))
        self.assertEqual(frozenset(), presence.wait(0))
        self.tree.commit()

        self.push("main")

        self.assertEqual({self.bare}, presence.wait(20))
        self.assertEqual(frozenset(), presence.wait(0))

    def test_a_push_to_a_living_dispatcher_starts_none(self) -> None:
        presence = self.new_presence()
        presence.announce(self.bare)
        self.tree.commit()

        self.push("main")

        # A hook that starts one has made its log before it returns.
        self.assertFalse((self.home / "dispatcher.log").exists())
        self.assertTrue(is_dispatcher_alive(self.bare))

    def test_many_pushes_wake_once(self) -> None:
        presence = self.new_presence()
        presence.announce(self.bare)
        for _ in range(3):
            self.tree.commit()
            self.push("main")

        self.assertEqual({self.bare}, presence.wait(20))
        self.assertEqual(frozenset(), presence.wait(0))

    def test_closing_takes_both_marks_away(self) -> None:
        presence = Presence()
        presence.announce(self.bare)

        presence.close()

        self.assertFalse(is_dispatcher_alive(self.bare))
        self.assertFalse((self.home / "dispatcher").exists())
        self.assertFalse((self.home / "wake").exists())

    def test_a_killed_dispatcher_is_not_alive_and_the_next_push_starts_one(self) -> None:
        other = self.start_other()
        self.assertTrue(is_dispatcher_alive(self.bare))
        other.kill()
        # Not reaped yet: the process is there, and ended.
        wait_until(lambda: not is_dispatcher_alive(self.bare), "the mark to be doubted")
        self.tree.commit()

        self.push("main")

        wait_until(lambda: bool(self.runs()), "a dispatcher to be started")

    def test_a_process_id_that_is_another_process_by_now_is_not_believed(self) -> None:
        presence = self.new_presence()
        presence.announce(self.bare)
        mark = self.home / "dispatcher"
        pid, started, boot = mark.read_text().split()
        false_marks = {
            "an earlier process": f"{pid} {int(started) - 1} {boot}\n",
            "an earlier boot": f"{pid} {started} 00000000-0000-0000-0000-000000000000\n",
            "no process": f"{2**22 + 1} {started} {boot}\n",
            "cut": f"{pid} {started}",
            "empty": "",
            "rubbish": "../../etc/passwd x y\n",
            "binary": "\x00\xff \n",
        }
        for name, false_mark in false_marks.items():
            with self.subTest(name):
                mark.write_text(false_mark)
                self.assertFalse(is_dispatcher_alive(self.bare))
                self.run_hook()
                wait_until(lambda: bool(self.runs()), "a dispatcher to be started")
                self.assertTrue(is_dispatcher_alive(self.bare))
                self.release()
                wait_until(lambda: not self.runs(), "it to end")
                (self.command.parent / "release").unlink()

    def test_a_program_whose_name_looks_like_a_mark_is_alive(self) -> None:
        program = self.folder / ") Z 1 2"
        program.symlink_to(sys.executable)
        other = subprocess.Popen(
            [str(program), "-c", OTHER_DISPATCHER, str(self.bare)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHOME": sys.base_prefix, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        with other:
            assert other.stdout is not None
            self.assertEqual(b"announced\n", other.stdout.readline())
            self.run_hook()
            self.assertFalse((self.home / "dispatcher.log").exists())

    def test_announcing_again_mends_what_was_removed(self) -> None:
        presence = self.new_presence()
        presence.announce(self.bare)
        (self.home / "dispatcher").unlink()
        (self.home / "wake").unlink()

        self.assertTrue(presence.announce(self.bare))

        self.run_hook()
        self.assertEqual({self.bare}, presence.wait(20))
        self.assertFalse((self.home / "dispatcher.log").exists())

    def test_a_foreign_file_in_the_place_of_the_fifo_is_replaced(self) -> None:
        (self.home / "wake").write_text("foreign")
        presence = self.new_presence()

        self.assertTrue(presence.announce(self.bare))

        self.assertTrue(stat.S_ISFIFO((self.home / "wake").stat().st_mode))

    def test_the_mark_of_another_living_dispatcher_stays(self) -> None:
        self.start_other()
        before = (self.home / "dispatcher").read_text()
        presence = Presence()
        presence.announce(self.bare)

        presence.close()

        self.assertEqual(before, (self.home / "dispatcher").read_text())
        self.assertTrue((self.home / "wake").exists())

    def test_the_mark_of_a_dispatcher_that_the_hook_started_is_its_own(self) -> None:
        self.command.write_text(
            f"#!/bin/sh\nexec '{sys.executable}' -c '{OTHER_DISPATCHER}' {self.bare} <{self.bare}/hold\n"
        )
        os.mkfifo(self.bare / "hold")
        self.run_hook()
        wait_until((self.home / "dispatcher").exists, "the mark")
        mark = (self.home / "dispatcher").read_text()

        with (self.bare / "hold").open("wb"):
            wait_until((self.home / "wake").exists, "the dispatcher to listen")
            self.assertEqual(mark, (self.home / "dispatcher").read_text())
        wait_until(lambda: not (self.home / "dispatcher").exists(), "the dispatcher to take its mark away")

    def test_a_repository_without_hook_is_said_once(self) -> None:
        bare = new_bare_repository(self)
        presence = self.new_presence()

        with self.assertLogs("ciapp.intake.presence", "WARNING") as logs:
            self.assertFalse(presence.announce(bare))
            self.assertFalse(presence.announce(bare))

        self.assertEqual(1, len(logs.records))
        self.assertFalse((bare / "ciapp").exists())

    def test_a_removed_repository_hurts_no_other(self) -> None:
        presence = self.new_presence()
        gone = new_bare_repository(self)
        self.install(gone)
        presence.announce(gone)
        presence.announce(self.bare)
        for name in ("dispatcher", "wake", "hook.conf", "install.json"):
            (gone / "ciapp" / name).unlink()
        spool_folder(gone).rmdir()
        (gone / "ciapp").rmdir()

        with self.assertLogs("ciapp.intake.presence", "WARNING"):
            self.assertFalse(presence.announce(gone))
        self.run_hook()
        self.assertEqual({self.bare}, presence.wait(20))

    def test_a_wait_can_be_interrupted(self) -> None:
        presence = self.new_presence()
        began = time.monotonic()
        previous = signal.signal(signal.SIGUSR1, lambda *_: presence.interrupt())
        self.addCleanup(signal.signal, signal.SIGUSR1, previous)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()

        self.assertEqual(frozenset(), presence.wait(20))

        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(frozenset(), presence.wait(0))

    def test_pushers_of_the_repositorys_group_can_record_and_wake(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root may become another user")
        group, alice, ciapp = 60_001, 60_002, 60_003
        bare = new_bare_repository(self, "shared.git", "--shared=group")
        for path in (bare, *bare.rglob("*")):
            os.chown(path, -1, group)
        for folder in (self.folder, bare.parent):
            folder.chmod(0o755)
        self.install(bare)
        self.assertEqual((0, group), (spool_folder(bare).stat().st_uid, spool_folder(bare).stat().st_gid))
        before = self.bare
        self.bare = bare
        pid = os.fork()
        if pid == 0:
            os.setgroups([group])
            os.setgid(group)
            os.setuid(ciapp)
            presence = Presence()
            announced = presence.announce(bare)
            woken = presence.wait(20)
            records = self.records()
            for record in records:
                record.discard()
            os._exit(0 if announced and woken == {bare} and len(records) == 1 and not self.records() else 1)
        wait_until((bare / "ciapp" / "wake").exists, "the dispatcher to listen")
        wait_until(lambda: is_dispatcher_alive(bare), "the dispatcher's mark")
        done = subprocess.run(
            [str(bare / "hooks" / "post-receive")],
            cwd=bare,
            env={**os.environ, "GIT_DIR": "."},
            input=f"{'0' * 40} {'ab' * 20} refs/heads/main\n".encode(),
            capture_output=True,
            user=alice,
            group=group,
            extra_groups=[group],
            umask=0o077,
        )
        self.assertIn(b"recorded 1 ref update of shared", done.stdout)
        self.assertEqual(b"", done.stderr)
        self.assertEqual(0, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        self.bare = before

    def test_another_users_dispatcher_is_seen_to_live(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root may become another user")
        presence = self.new_presence()
        presence.announce(self.bare)
        self.folder.chmod(0o755)

        pid = os.fork()
        if pid == 0:
            os.setuid(pwd.getpwnam("nobody").pw_uid)
            os._exit(0 if is_dispatcher_alive(self.bare) else 1)
        self.assertEqual(0, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def test_a_folder_that_is_no_repository_has_no_dispatcher(self) -> None:
        self.assertFalse(is_dispatcher_alive(self.folder / "nowhere"))
