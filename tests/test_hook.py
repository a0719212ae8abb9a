"""hooks/post-receive under real pushes."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ciapp.intake.push import RefUpdate
from ciapp.intake.spool import spool_folder
from tests.support.git_repositories import git
from tests.support.hooked import NULL, HookedTest, busybox_path, wait_until
from tests.support.services import need

HOOK_FILE = Path(__file__).parents[1] / "hooks" / "post-receive"


def is_ignored(pid: int, number: int) -> bool:
    """Whether a process ignores a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    [ignored] = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn")]
    return bool(int(ignored, 16) & 1 << number - 1)


def path_of_noted_commands(log: Path) -> str:
    """A PATH whose commands note their names before they run."""
    folder = log.with_name(f"{log.name}-bin")
    folder.mkdir()
    for name in ("cat", "date", "dd", "env", "grep", "mv", "rm", "sed", "setsid"):
        script = folder / name
        script.write_text(f'#!/bin/sh\necho {name} >>{log}\nexec {shutil.which(name)} "$@"\n')
        script.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


class TestRecord(HookedTest):
    def setUp(self) -> None:
        super().setUp()
        self.install()
        self.listen()

    def test_a_push_leaves_one_record_of_what_git_said(self) -> None:
        pushed = self.tree.commit()

        self.push("main", "main:refs/heads/copy", environ={"LOGNAME": "ann"})

        [record] = self.records()
        self.assertEqual(
            {RefUpdate(NULL, pushed, "refs/heads/main"), RefUpdate(NULL, pushed, "refs/heads/copy")},
            set(record.updates),
        )
        self.assertEqual("ann", record.pusher)
        self.assertEqual((), record.options)
        self.assertLess(abs(datetime.now(UTC) - record.received_at), timedelta(seconds=60))

    def test_each_push_has_a_record_of_its_own(self) -> None:
        pushed = []
        for _ in range(3):
            pushed.append(self.tree.commit())
            self.push("main")

        records = self.records()
        self.assertEqual(pushed, [record.updates[0].new for record in records])
        self.assertEqual(3, len({record.id for record in records}))

    def test_push_options_are_recorded_in_order(self) -> None:
        self.tree.commit()
        options = ("ci.fresh", "two words", "$(touch hacked) `id` 'quote' \\ \" *", "", "größe")

        self.push(*[f"--push-option={option}" for option in options], "main")

        self.assertEqual(options, self.records()[0].options)

    def test_no_value_brings_a_second_line_into_the_header(self) -> None:

        self.run_hook(
            environ={
                "GIT_PUSH_OPTION_COUNT": "1",
                "GIT_PUSH_OPTION_0": "ci.x\n\nforged",
                "REMOTE_USER": "eve\noption ci.skip",
            }
        )

        [record] = self.records()
        self.assertEqual(("ci.x",), record.options)
        self.assertEqual("eve", record.pusher)

    def test_ref_names_of_any_bytes_are_recorded(self) -> None:
        self.tree.commit()
        refs = [
            b"refs/heads/\xff\xfe",
            "refs/heads/größe".encode(),
            b"refs/heads/$(touch${IFS}hacked)",
            b"refs/heads/'\"`;&|<>%s",
        ]

        self.push(*[b"main:".decode() + os.fsdecode(ref) for ref in refs])

        recorded = {update.ref.encode("utf-8", "surrogateescape") for update in self.records()[0].updates}
        self.assertEqual(set(refs), recorded)

    def test_no_number_of_refs_costs_more_than_two_processes(self) -> None:
        started, counts = [], [1, 8, 9, 1000]
        for count in counts:
            log = self.folder / f"started-{count}"
            path = path_of_noted_commands(log)
            lines = "".join(f"{NULL} {'ab' * 20} refs/tags/{number}\n" for number in range(count))
            self.run_hook(lines, environ={"PATH": path})
            started.append(sorted(log.read_text().split()))

        self.assertEqual([["dd", "mv"]] * len(counts), started)
        self.assertEqual(counts, sorted(len(record.updates) for record in self.records()))

    def test_a_push_into_a_linked_work_tree_is_recorded(self) -> None:
        self.tree.commit()
        self.push("main")
        linked = self.folder / "linked"
        git(self.bare, "worktree", "add", "--quiet", str(linked), "-b", "side", "main")

        self.tree.git("push", "--quiet", str(linked), "main:refs/heads/topic")

        self.assertEqual(
            {"refs/heads/main", "refs/heads/topic"},
            {update.ref for record in self.records() for update in record.updates},
        )

    def test_every_shell_writes_the_same_record(self) -> None:
        few = f"{NULL} {'ab' * 20} refs/heads/größe\n{'ab' * 20} {NULL} refs/tags/\udcff$(x)*\n"
        options = {"GIT_PUSH_OPTION_COUNT": "2", "GIT_PUSH_OPTION_0": "a  b\\n", "GIT_PUSH_OPTION_1": "c"}
        path = busybox_path(self.folder / "busybox")
        shells = {"dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash", "--posix"]}
        for lines, said in ((few, "2 ref updates"), (few * 40, "more than 8 ref updates")):
            for name, (program, *words) in shells.items():
                shell = shutil.which(program)
                if shell is None:
                    continue
                environ = {"PATH": path, **options} if name == "busybox" else options
                with self.subTest(shell=name, lines=lines.count("\n")):
                    shown = self.run_hook(lines, shell=[shell, *words], environ=environ)
                    self.assertIn(f"recorded {said} of team", shown)
                    [record] = self.records()
                    self.assertEqual(("a  b\\n", "c"), record.options)
                    content = record.path.read_bytes().decode("utf-8", "surrogateescape")
                    self.assertEqual(lines, content.partition("\n\n")[2])
                    record.discard()

    def test_shellcheck_finds_nothing(self) -> None:
        if shutil.which("shellcheck") is None:
            need("shellcheck", "it is not installed")
        done = subprocess.run(["shellcheck", str(HOOK_FILE)], capture_output=True, text=True)

        self.assertEqual("", done.stdout + done.stderr)


class TestMessages(HookedTest):
    def setUp(self) -> None:
        super().setUp()
        self.install()
        self.listen()
        self.short = self.tree.commit()[:10]

    def test_a_push_says_how_to_follow_it(self) -> None:
        self.assertEqual(
            [f"ciapp: recorded 1 ref update of team; follow with: ciapp wait team {self.short}"],
            self.push("main"),
        )

    def test_of_several_refs_a_branch_is_followed(self) -> None:
        self.tree.git("tag", "a-tag")
        other = self.tree.commit()[:10]

        [said] = self.push("a-tag", "main")

        self.assertEqual(f"ciapp: recorded 2 ref updates of team; follow with: ciapp wait team {other}", said)

    def test_of_many_refs_the_first_few_are_looked_at(self) -> None:
        for name in range(30):
            self.tree.git("tag", f"tag-{name:02}")

        [said] = self.push("--tags", "main")
        self.assertEqual(
            f"ciapp: recorded more than 8 ref updates of team; follow with: ciapp wait team {self.short}",
            said,
        )
        self.assertEqual(31, len(self.records()[0].updates))

        [said] = self.push("--delete", *[f"tag-{name:02}" for name in range(30)])
        self.assertEqual("ciapp: recorded more than 8 ref updates of team; follow with: ciapp log team", said)

    def test_nothing_is_said_or_recorded_without_a_ref_update(self) -> None:
        self.assertEqual("", self.run_hook(""))
        self.assertEqual([], self.records())

    def test_only_deletions_have_nothing_to_follow(self) -> None:
        self.push("main", "main:refs/heads/a", "main:refs/heads/b")

        self.assertEqual(
            ["ciapp: recorded 2 ref updates of team; only deletions, so there is nothing to test"],
            self.push("--delete", "a", "b"),
        )

    def test_what_is_neither_branch_nor_tag_is_not_followed(self) -> None:
        said = "no branch or tag, so it is tested only where the settings say so"
        self.assertEqual(
            [f"ciapp: recorded 1 ref update of team; {said}"], self.push("main:refs/notes/commits")
        )
        self.assertEqual(
            [f"ciapp: recorded 2 ref updates of team; {said}"],
            self.push(":refs/notes/commits", "main:refs/x/y"),
        )
        [said] = self.push("main:refs/notes/a", "main:refs/tags/v1")
        self.assertIn(f"2 ref updates of team; follow with: ciapp wait team {self.short}", said)

    def test_a_deletion_beside_a_branch_is_not_followed(self) -> None:
        self.push("main:refs/heads/a")

        [said] = self.push("main", ":a")

        self.assertIn(f"2 ref updates of team; follow with: ciapp wait team {self.short}", said)

    def test_a_skipped_push_says_so(self) -> None:
        self.assertEqual(
            ["ciapp: recorded 1 ref update of team; not tested, as ci.skip asks"],
            self.push("--push-option=ci.skip", "main"),
        )

    def test_an_option_of_ours_that_there_is_not_is_said(self) -> None:
        said = self.push("--push-option=ci.skp", "--push-option=ci.fresh", "--push-option=merge", "main")
        self.assertEqual("ciapp: warning: ci.skp is no push option; there are ci.skip and ci.fresh", said[0])
        self.assertIn("recorded 1 ref update of team; follow with", said[1])
        self.assertEqual(("ci.skp", "ci.fresh", "merge"), self.records()[0].options)
        self.tree.commit()
        self.assertEqual(1, len(self.push("--push-option=ci.fresh", "--push-option=merge", "main")))


class TestTrouble(HookedTest):
    """The hook's status is 0, the push is accepted, one line says what is wrong, no part is left."""

    def setUp(self) -> None:
        super().setUp()
        self.install()
        self.presence = self.listen()
        self.tree.commit()

    def assert_one_warning(self, lines: list[str], *words: str) -> None:
        self.assertEqual(1, len(lines), lines)
        self.assertTrue(lines[0].startswith("ciapp: warning: "), lines)
        for word in words:
            self.assertIn(word, lines[0])

    def test_hook_conf_is_missing(self) -> None:
        (self.bare / "ciapp" / "hook.conf").unlink()

        self.assert_one_warning(self.push("main"), "hook.conf is missing", "ciapp hook install")

    def test_hook_conf_is_broken(self) -> None:
        (self.bare / "ciapp" / "hook.conf").write_text("if then '\n")

        self.push("main")

        self.assertIn("refs/heads/main", git(self.bare, "show-ref"))
        self.run_hook()

    def test_the_whole_folder_of_ciapp_is_missing(self) -> None:
        shutil.rmtree(self.bare / "ciapp")

        self.assert_one_warning(self.push("main"), "hook.conf is missing")

    def test_the_spool_is_missing(self) -> None:
        spool_folder(self.bare).rmdir()

        self.assert_one_warning(self.push("main"), "push not recorded", "No such file or directory")

    def test_the_spool_cannot_be_written_by_this_user(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root may become another user")
        self.folder.chmod(0o755)

        said = self.run_hook(user=pwd.getpwnam("nobody").pw_uid)

        self.assert_one_warning(said.splitlines(), "push not recorded", "Permission denied")

    def test_the_disk_is_full(self) -> None:
        spool = spool_folder(self.bare)
        options = ["-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", str(spool)]
        if os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True).returncode:
            self.skipTest("no file system may be mounted here")
        self.addCleanup(subprocess.run, ["umount", str(spool)], check=True)
        lines = "".join(f"{NULL} {'ab' * 20} refs/heads/{number}\n" for number in range(2000))

        said = self.run_hook(lines)

        self.assert_one_warning(said.splitlines(), "push not recorded", "No space left on device")
        self.assertEqual([], list(spool.iterdir()))
        self.assertIn("recorded 1 ref update", self.run_hook())

    def test_files_may_not_grow(self) -> None:
        lines = "".join(f"{NULL} {'ab' * 20} refs/heads/{number}\n" for number in range(2000))

        said = self.run_hook(lines, shell=["sh", "-c", 'ulimit -f 16; exec "$0"'])

        self.assert_one_warning(said.splitlines(), "push not recorded")
        self.assertEqual([], list(spool_folder(self.bare).iterdir()))

    def test_ciapp_is_missing(self) -> None:
        self.presence.close()
        self.command.unlink()

        recorded, warning = self.push("main")

        self.assertIn("recorded 1 ref update", recorded)
        self.assert_one_warning([warning], f"{self.command} is missing", "ciapp up")
        self.assertEqual(1, len(self.records()))

    def test_ciapp_is_out_of_reach_of_the_user_who_pushed(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root may become another user")
        self.presence.close()
        self.folder.chmod(0o755)
        spool_folder(self.bare).chmod(0o777)
        nobody = pwd.getpwnam("nobody").pw_uid

        def assert_warned(why: str) -> None:
            recorded, *warning = self.run_hook(user=nobody).splitlines()
            self.assertIn("recorded 1 ref update", recorded)
            self.assert_one_warning(warning, f"{self.command} {why}", "ciapp up")

        self.command.parent.chmod(0o700)
        assert_warned("may not be executed by the user who pushed")
        self.command.parent.chmod(0o755)
        self.command.chmod(0o700)
        assert_warned("may not be executed by the user who pushed")
        self.command.unlink()
        assert_warned("is missing")
        self.command.symlink_to(self.folder / "nowhere")
        assert_warned("leads to no program that the user who pushed may execute")

    def test_the_log_cannot_be_written(self) -> None:
        self.presence.close()
        (self.bare / "ciapp" / "dispatcher.log").mkdir()

        self.assertEqual(1, len(self.push("main")))

        wait_until(lambda: bool(self.runs()), "the command to start")

    def test_a_wake_file_that_is_no_fifo_is_left_alone(self) -> None:
        (self.bare / "ciapp" / "wake").unlink()
        (self.bare / "ciapp" / "wake").write_text("foreign")

        self.assertEqual(1, len(self.push("main")))

        self.assertEqual("foreign", (self.bare / "ciapp" / "wake").read_text())

    def test_a_fifo_without_a_listener_keeps_nobody_waiting(self) -> None:
        self.presence.close()
        os.mkfifo(self.bare / "ciapp" / "wake")

        self.assertEqual(1, len(self.push("main")))

        wait_until(lambda: bool(self.runs()), "the command to start")


class TestStartedDispatcher(HookedTest):
    """What the hook starts when no dispatcher lives."""

    def setUp(self) -> None:
        super().setUp()
        self.install()
        self.tree.commit()

    def started(self) -> list[str]:
        wait_until(lambda: bool(self.runs()), "the command to start")
        [note] = self.runs()
        return note.splitlines()

    def test_it_runs_on_after_the_push_has_returned(self) -> None:
        began = time.monotonic()
        self.push("main")

        # The command ends only when it is released: a push that waited for it would not be here.
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(["word -m", "word it's", "word dispatcher", "word --once"], self.started()[:4])

    def test_it_has_its_own_session_and_no_descriptor_of_the_push(self) -> None:
        self.push("main")

        note = self.started()
        [words] = [line.split() for line in note if line.startswith("word session")]
        self.assertEqual(words[2], words[4])
        log = str(self.bare / "ciapp" / "dispatcher.log")
        self.assertEqual(["/dev/null", log], [note[-3], note[-1]])

    def test_it_has_our_settings_and_no_variable_of_git(self) -> None:
        self.push("main")

        note = self.started()
        self.assertIn(f"CIAPP_CONFIG={self.folder}/my ciapp.toml", note)
        self.assertIn(f"CIAPP_STATE_DIR={self.folder}/state", note)
        self.assertEqual([], [line for line in note if line.startswith("GIT_")])

    def test_to_start_it_costs_two_more_programs(self) -> None:
        self.command.write_text('#!/bin/sh\necho ran >>"${0%/*}/ran"\n')
        log = self.folder / "started"

        self.run_hook(environ={"PATH": path_of_noted_commands(log)})
        wait_until((self.command.parent / "ran").exists, "the command to run")

        self.assertEqual(["dd", "mv", "mv", "setsid"], sorted(log.read_text().split()))

    def test_every_shell_forgets_gits_variables_and_no_other(self) -> None:
        self.command.write_text('#!/bin/sh\nenv >"${0%/*}/ran.part"\nmv "${0%/*}/ran.part" "${0%/*}/ran"\n')
        ran = self.command.parent / "ran"
        environ = {
            "GIT_A": "one\nGIT_B=two\nexport GIT_C-c=3\nexport PATH=x\nGIT_* $(touch hacked) 'it`s\"",
            "GIT_PUSH_OPTION_0": "",
            "GIT_QUARANTINE_PATH": "/x y",
            "AGIT_A": "kept",
            "OTHER": "export GIT_D=4",
        }
        path = busybox_path(self.folder / "busybox")
        for name, shell in (
            ("dash", ["dash"]),
            ("busybox", ["busybox", "sh"]),
            ("bash", ["bash", "--posix"]),
        ):
            program = shutil.which(shell[0])
            if program is None:
                continue
            with self.subTest(shell=name):
                paths = {"PATH": path} if name == "busybox" else {}
                self.run_hook(shell=[program, *shell[1:]], environ={**environ, **paths})
                wait_until(ran.exists, "the command to run")
                lines = ran.read_text().splitlines()
                ran.unlink()
                self.assertEqual([], [line for line in lines if line.startswith("GIT_")])
                self.assertIn("AGIT_A=kept", lines)
                self.assertIn("OTHER=export GIT_D=4", lines)
                self.assertEqual([], list(self.bare.rglob("hacked")))

    def test_a_push_while_it_runs_starts_no_second(self) -> None:
        self.push("main")
        self.started()
        self.tree.commit()
        self.push("main")

        self.release()
        wait_until(lambda: not self.runs(), "the command to end")
        self.assertEqual(1, len(list(self.command.parent.glob("done.*"))))

    def test_a_push_after_it_has_ended_starts_another(self) -> None:
        self.release()
        for count in (1, 2):
            self.tree.commit()
            self.push("main")
            wait_until(
                lambda count=count: len(list(self.command.parent.glob("done.*"))) == count,  # type: ignore[misc]
                f"command {count} to end",
            )

    def test_signals_that_the_hook_ignores_are_not_ignored_by_it(self) -> None:
        self.push("main")

        [words] = [line.split() for line in self.started() if line.startswith("word session")]
        for number in (signal.SIGTERM, signal.SIGHUP):
            self.assertFalse(is_ignored(int(words[4]), number), number)

    def test_its_complaints_are_kept(self) -> None:
        self.command.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")

        self.assertEqual(1, len(self.push("main")))

        log = self.bare / "ciapp" / "dispatcher.log"
        wait_until(lambda: log.read_text() == "broken\n", "the complaint in the log")


class TestInterruption(HookedTest):
    def test_a_pusher_who_hangs_up_leaves_a_record_all_the_same(self) -> None:
        self.install()
        self.listen()
        hook = subprocess.Popen(
            [str(self.bare / "hooks" / "post-receive")],
            cwd=self.bare,
            env={**os.environ, "GIT_DIR": "."},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            process_group=0,
        )
        assert hook.stdin is not None
        hook.stdin.write(f"{NULL} {'ab' * 20} refs/heads/main\n".encode())
        hook.stdin.flush()
        numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
        wait_until(lambda: all(is_ignored(hook.pid, number) for number in numbers), "the hook to begin")
        for number in numbers:
            os.killpg(hook.pid, number)
        hook.stdin.close()

        self.assertEqual(0, hook.wait(20))
        self.assertEqual(1, len(self.records()))
