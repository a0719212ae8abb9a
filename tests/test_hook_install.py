"""ciapp/intake/hook.py: putting the hook in, and taking it out without a trace."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import stat
from pathlib import Path

from ciapp.errors import CiError, GitError, UsageError
from ciapp.intake.hook import HookError, install_hook, is_installed, remove_hook
from ciapp.intake.hook_settings import logs_refs
from ciapp.intake.spool import read_records, spool_folder
from tests.support.git_repositories import WorkTree, git, new_bare_repository, new_folder
from tests.support.hooked import NULL, HookedTest, busybox_path, wait_until

#: A hook that tells what it was given.
CURIOUS = """#!/bin/sh
echo "curious: ${0##*/} in $PWD, GIT_DIR=$GIT_DIR, options ${GIT_PUSH_OPTION_COUNT-none}"
sed 's/^/curious: /'
cat "${0%/*}/helper" 2>/dev/null
exit 7
"""


def snapshot(folder: Path) -> dict[str, str]:
    """Kind, mode and content of all that is in a folder, objects and refs left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.split("/")[0] in {"objects", "refs", "logs", "packed-refs"}:
            continue
        mode = path.lstat().st_mode
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            content = ""
        found[name] = f"{stat.filemode(mode)} {content}"
    return found


class InstallTest(HookedTest):
    def write_hook(self, path: Path, content: str = CURIOUS, mode: int = 0o755) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)

    def assert_leaves_no_trace(self) -> None:
        before = snapshot(self.bare)
        self.install()
        self.install()
        self.assertTrue(is_installed(self.bare))

        remove_hook(self.bare)

        self.assertEqual(before, snapshot(self.bare))
        self.assertFalse(is_installed(self.bare))

    def pushed(self, *words: str) -> list[str]:
        """Push a new commit under a living dispatcher; what the hooks said."""
        self.listen()
        self.tree.commit()
        return self.push("main", *words)


class TestInstall(InstallTest):
    def test_a_bare_repository(self) -> None:
        installed = self.install()

        self.assertEqual("team", installed.name)
        self.assertEqual(self.bare / "hooks" / "post-receive", installed.hook)
        self.assertIsNone(installed.chained)
        self.assertTrue(is_installed(self.bare))
        self.assertIn("recorded 1 ref update of team", self.pushed()[0])

    def test_a_repository_with_a_work_tree(self) -> None:
        path = new_folder(self) / "project"
        path.mkdir()
        git(path, "init", "--quiet")
        installed = self.install(path)

        self.assertEqual("project", installed.name)
        self.tree.commit()
        self.bare = path / ".git"
        self.listen()
        self.tree.git("push", "--quiet", str(path), "main:refs/heads/topic")
        self.assertEqual("refs/heads/topic", read_records(path / ".git")[0].updates[0].ref)

    def test_a_linked_work_tree_leads_to_its_main_repository(self) -> None:
        self.tree.commit()
        self.push("main")
        linked = self.folder / "linked"
        git(self.bare, "worktree", "add", "--quiet", str(linked), "-b", "side", "main")
        for path in (linked, self.bare / "worktrees" / "linked"):
            with self.subTest(path):
                self.assertEqual(self.bare / "hooks" / "post-receive", self.install(path).hook)
                self.assertTrue(is_installed(path))
                remove_hook(path)
                self.assertFalse(is_installed(self.bare))

    def test_a_submodule_has_a_repository_of_its_own(self) -> None:
        self.tree.commit()
        self.push("main")
        upper = self.folder / "upper"
        git(self.folder, "init", "--quiet", str(upper))
        git(upper, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(self.bare), "lower")

        installed = self.install(upper / "lower")

        self.assertEqual(upper / ".git/modules/lower/hooks/post-receive", installed.hook)
        self.assertEqual("lower", installed.name)

    def test_a_git_file_that_leads_nowhere_is_no_repository(self) -> None:
        for content in (b"gitdir: nowhere\n", b"gitdir: \n", b"gitdir: a\0b\n", b"\xff\xfe\0", b""):
            folder = new_folder(self)
            (folder / ".git").write_bytes(content)
            with self.subTest(content), self.assertRaisesRegex(GitError, "is not a git repository"):
                self.install(folder)

    def test_a_name_of_ones_own(self) -> None:
        self.assertEqual("Other-1.x", self.install(name="Other-1.x").name)
        self.assertIn("of Other-1.x;", self.pushed()[0])

    def test_a_name_is_kept_until_another_is_given(self) -> None:
        self.install(name="first")
        self.assertEqual("first", self.install().name)
        self.assertEqual("second", self.install(name="second").name)

    def test_names_that_cannot_be(self) -> None:
        for name in ("two words", "-x", "a/b", "x" * 65, "$(id)", "a\n", ".hidden"):
            with self.subTest(name=name), self.assertRaisesRegex(UsageError, "give --name"):
                self.install(name=name)
        self.assertFalse((self.bare / "ciapp").exists())

    def test_a_folder_name_that_is_no_name(self) -> None:
        odd = new_bare_repository(self, "two words.git")

        with self.assertRaisesRegex(UsageError, "give --name"):
            self.install(odd)
        self.assertEqual("fine", self.install(odd, name="fine").name)

    def test_a_folder_that_is_no_repository(self) -> None:
        with self.assertRaises(GitError):
            self.install(self.folder)
        with self.assertRaises(GitError):
            remove_hook(self.folder)

    def test_paths_and_words_of_any_kind_reach_the_hook(self) -> None:
        odd = self.folder / 'it\'s $(touch hacked) "x"\n`y`'
        odd.mkdir()
        install_hook(
            self.bare, name=None, command=[str(self.command), "$HOME", "a b"], config=odd / "c", state_dir=odd
        )
        self.tree.commit()

        self.push("main")
        wait_until(lambda: bool(self.runs()), "the command to start")

        [note] = self.runs()
        self.assertIn("word $HOME\nword a b\nword dispatcher\nword --once\n", note)
        self.assertIn(f"CIAPP_STATE_DIR={odd}\n", note)
        self.assertIn(f"CIAPP_CONFIG={odd}/c\n", note)
        self.assertEqual([], list(self.bare.rglob("hacked")))

    def test_pushers_may_send_options_and_do_not_see_our_refs(self) -> None:
        self.install()
        self.pushed("--push-option=ci.x")
        git(self.bare, "update-ref", "refs/ciapp/push/1/0", "refs/heads/main")

        self.assertEqual(("ci.x",), self.records()[0].options)
        with self.assertRaisesRegex(AssertionError, "hidden ref"):
            self.push("main:refs/ciapp/x")
        self.assertIn("refs/ciapp", self.tree.git("ls-remote", "origin"))

    def test_removing_it_takes_our_refs_along(self) -> None:
        self.install()
        self.pushed()
        before = git(self.bare, "show-ref")
        for name in ("push/1/0", "push/1/1", "found/2/0"):
            git(self.bare, "update-ref", f"refs/ciapp/{name}", "main")

        remove_hook(self.bare)

        self.assertEqual(before, git(self.bare, "show-ref"))

    def test_installing_again_changes_nothing(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive")
        self.install()
        before = snapshot(self.bare)
        written_at = (self.bare / "hooks" / "post-receive").stat().st_mtime_ns

        self.install()

        self.assertEqual(before, snapshot(self.bare))
        self.assertEqual(written_at, (self.bare / "hooks" / "post-receive").stat().st_mtime_ns)
        self.assertEqual("true", git(self.bare, "config", "--get-all", "receive.advertisePushOptions"))
        self.assertEqual("refs/ciapp", git(self.bare, "config", "--get-all", "receive.hideRefs"))
        self.assertEqual("true", git(self.bare, "config", "--get-all", "core.logAllRefUpdates"))

    def test_a_repository_that_logs_its_refs_already_is_left_to_do_it_its_way(self) -> None:
        git(self.bare, "config", "core.logAllRefUpdates", "always")
        self.install()
        self.assertEqual("always", git(self.bare, "config", "--get-all", "core.logAllRefUpdates"))

    def test_installing_again_makes_an_older_installation_log_its_refs(self) -> None:
        before = snapshot(self.bare)
        self.install()
        note = self.bare / "ciapp" / "install.json"
        told = json.loads(note.read_text())
        del told["settings"]["core.logAllRefUpdates"], told["made_logs"]
        note.write_text(json.dumps(told))
        git(self.bare, "config", "--unset", "core.logAllRefUpdates")
        self.assertFalse(logs_refs(self.bare))
        self.install()
        self.assertTrue(logs_refs(self.bare))
        remove_hook(self.bare)
        self.assertEqual(before, snapshot(self.bare))

    def test_installing_again_refreshes_how_ciapp_is_started(self) -> None:
        self.install()
        install_hook(self.bare, name=None, command=["/elsewhere/ciapp"], config=None, state_dir=None)

        conf = (self.bare / "ciapp" / "hook.conf").read_text()

        self.assertIn("/elsewhere/ciapp", conf)
        self.assertNotIn(str(self.command), conf)

    def test_installing_again_keeps_the_records(self) -> None:
        self.install()
        self.pushed()

        self.install()

        self.assertEqual(1, len(self.records()))

    def test_an_older_hook_of_ours_is_brought_up_to_date(self) -> None:
        self.install()
        hook = self.bare / "hooks" / "post-receive"
        current = hook.read_bytes()
        self.write_hook(hook, "#!/bin/sh\n# ciapp post-receive hook, of long ago\nexit 0\n", 0o700)

        installed = self.install()

        self.assertIsNone(installed.chained)
        self.assertEqual(current, hook.read_bytes())
        self.assertEqual(0o755, stat.S_IMODE(hook.stat().st_mode))

    def test_a_hook_of_ours_that_may_not_be_executed_is_mended(self) -> None:
        self.install()
        (self.bare / "hooks" / "post-receive").chmod(0o644)
        self.assertFalse(is_installed(self.bare))

        self.install()

        self.assertTrue(is_installed(self.bare))

    def test_a_repository_that_was_moved_goes_on(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive")
        self.install()
        moved = self.bare.rename(self.folder / "moved.git")
        self.tree.git("remote", "set-url", "origin", str(moved))
        self.bare = moved

        said = self.pushed()

        self.assertIn("recorded 1 ref update of team", said[0])
        self.assertTrue(any(line.startswith("curious: ") for line in said), said)
        self.assertTrue(is_installed(moved))
        self.assertEqual("team", self.install(moved).name)

    def test_a_repository_of_another_user_is_refused_in_a_sentence(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root may become another user")
        self.folder.chmod(0o755)
        pid = os.fork()
        if pid == 0:
            os.setuid(pwd.getpwnam("nobody").pw_uid)
            try:
                self.install()
            except HookError as error:
                os._exit(0 if "Permission denied" in str(error) and "owner" in str(error) else 2)
            os._exit(1)
        self.assertEqual(0, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def test_those_who_may_write_objects_may_write_the_spool(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root may give files away")
        owner = pwd.getpwnam("nobody")
        for shared, mode in (("group", 0o2775), ("all", 0o2777), ("umask", 0o755), ("0640", 0o2750)):
            with self.subTest(shared=shared):
                bare = new_bare_repository(self, "shared.git", f"--shared={shared}")
                for path in (bare, *bare.rglob("*")):
                    os.chown(path, owner.pw_uid, 60_001)
                (bare / "objects").chmod(mode)
                self.install(bare)

                facts = spool_folder(bare).stat()
                self.assertEqual((owner.pw_uid, 60_001), (facts.st_uid, facts.st_gid))
                self.assertEqual(mode, stat.S_IMODE(facts.st_mode))

    def test_errors_are_sentences_of_ours(self) -> None:
        self.install()
        (self.bare / "ciapp" / "install.json").write_text("{")

        with self.assertRaisesRegex(CiError, "install again|delete it"):
            self.install()


class TestExistingHook(InstallTest):
    def test_it_is_called_with_what_git_gives(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive")
        installed = self.install()

        said = self.pushed("main:refs/heads/copy", "--push-option=x")

        self.assertEqual(self.bare / "hooks" / "post-receive.before-ciapp", installed.chained)
        new = self.tree.git("rev-parse", "main")
        self.assertIn("recorded 2 ref updates", said[0])
        self.assertEqual(f"curious: post-receive in {self.bare}, GIT_DIR=., options 1", said[1])
        self.assertEqual(
            {f"curious: {'0' * 40} {new} refs/heads/main", f"curious: {'0' * 40} {new} refs/heads/copy"},
            set(said[2:]),
        )

    def test_no_number_of_refs_changes_what_it_gets_or_what_is_recorded(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive", "#!/bin/sh\ncat\necho end\n")
        self.install()
        self.listen()
        path = busybox_path(self.folder / "busybox")
        for name, shell in (
            ("dash", ["dash"]),
            ("busybox", ["busybox", "sh"]),
            ("bash", ["bash", "--posix"]),
        ):
            for count in (1, 7, 8, 9, 10, 41):
                lines = "".join(f"{NULL} {'ab' * 20} refs/heads/{number}\n" for number in range(count))
                if shutil.which(shell[0]) is None:
                    continue
                with self.subTest(shell=name, count=count):
                    words = [str(shutil.which(shell[0])), *shell[1:]]
                    said = self.run_hook(
                        lines, shell=words, environ={"PATH": path} if name == "busybox" else {}
                    )

                    self.assertEqual(f"{lines}end\n", said.partition("\n")[2])
                    [record] = self.records()
                    self.assertEqual(count, len(record.updates))
                    record.discard()

    def test_a_push_of_one_ref_more_than_the_shell_reads_keeps_its_options(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive")
        self.install()

        said = self.pushed(*[f"main:refs/heads/b{number}" for number in range(8)], "--push-option=ci.skip")

        self.assertIn("not tested, as ci.skip asks", said[0])
        self.assertEqual(9, sum(line.startswith("curious: 0") for line in said))
        [record] = self.records()
        self.assertEqual((9, ("ci.skip",)), (len(record.updates), record.options))

    def test_it_finds_the_files_beside_it(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive")
        (self.bare / "hooks" / "helper").write_text("helped\n")
        self.install()

        self.assertIn("helped", self.pushed())

    def test_it_is_called_when_the_push_cannot_be_recorded(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive")
        self.install()
        (self.bare / "ciapp" / "hook.conf").unlink()

        said = self.pushed()

        self.assertIn("warning", said[0])
        self.assertEqual(2, sum(line.startswith("curious: ") for line in said))

    def test_it_is_called_when_the_folder_of_ciapp_is_gone(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive")
        self.install()
        self.tree.commit()
        for path in sorted((self.bare / "ciapp").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        (self.bare / "ciapp").rmdir()

        self.assertEqual(2, sum(line.startswith("curious: ") for line in self.push("main")))

    def test_one_that_reads_nothing_disturbs_nobody(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive", "#!/bin/sh\nexec <&-\nexit 1\n")
        self.install()
        lines = "".join(f"{'0' * 40} {'ab' * 20} refs/heads/{number}\n" for number in range(5000))
        self.listen()

        said = self.run_hook(lines)

        self.assertEqual(1, len(said.splitlines()), said)

    def test_one_that_may_not_be_executed_is_not_called(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive", mode=0o644)
        self.install()

        self.assertEqual(1, len(self.pushed()))

    def test_one_that_came_over_ours_is_not_overwritten(self) -> None:
        hooks = self.bare / "hooks"
        self.write_hook(hooks / "post-receive")
        self.install()
        self.write_hook(hooks / "post-receive", "#!/bin/sh\necho second\n")

        self.assertFalse(is_installed(self.bare))
        with self.assertRaisesRegex(UsageError, "join the two"):
            self.install()
        remove_hook(self.bare)
        self.assertIn("second", (hooks / "post-receive").read_text())
        self.assertEqual(CURIOUS, (hooks / "post-receive.before-ciapp").read_text())

    def test_signals_and_umask_reach_it_as_if_git_had_called_it(self) -> None:
        self.addCleanup(os.umask, os.umask(0o027))
        self.write_hook(
            self.bare / "hooks" / "post-receive",
            "#!/bin/sh\ngrep SigIgn /proc/$$/status\necho mask $(umask)\ncat >/dev/null\n",
        )
        self.tree.commit()
        plain = self.push("main")
        self.install()
        [_, *chained] = self.pushed()

        self.assertEqual(plain, chained)
        self.assertIn("mask 0027", plain)


class TestUnfinished(InstallTest):
    """What cannot be installed leaves nothing behind, and what was killed is finished by the next."""

    def assert_refused(self, error: type[CiError], said: str) -> None:
        before = snapshot(self.bare)
        with self.assertRaisesRegex(error, said):
            self.install()
        self.assertEqual(before, snapshot(self.bare))

    def test_a_folder_in_the_place_of_the_hook(self) -> None:
        (self.bare / "hooks" / "post-receive").mkdir()

        self.assert_refused(
            UsageError, "hooks/post-receive is a folder, where git looks for a hook; move it away"
        )

    def test_hooks_that_git_looks_for_elsewhere(self) -> None:
        git(self.bare, "config", "extensions.worktreeConfig", "true")
        git(self.bare, "config", "--worktree", "core.hooksPath", str(new_folder(self)))

        self.assert_refused(HookError, "unset core.hooksPath")

    def test_a_hook_that_cannot_be_written(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive")
        self.bare.joinpath("hooks", f".post-receive.{os.getpid()}").mkdir()  # where it is written first

        self.assert_refused(HookError, "Is a directory")

    def test_one_that_was_there_before_stays_when_it_cannot_be_refreshed(self) -> None:
        self.install()
        self.bare.joinpath("ciapp", f".hook.conf.{os.getpid()}").mkdir()

        self.assert_refused(HookError, "Is a directory")

        self.assertTrue(is_installed(self.bare))

    def test_one_that_was_killed_before_ours_took_its_place(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive")
        before = snapshot(self.bare)
        os.link(self.bare / "hooks" / "post-receive", self.bare / "hooks" / "post-receive.before-ciapp")

        installed = self.install()

        self.assertEqual(self.bare / "hooks" / "post-receive.before-ciapp", installed.chained)
        remove_hook(self.bare)
        self.assertEqual(before, snapshot(self.bare))


class TestRemove(InstallTest):
    def test_nothing_was_there(self) -> None:
        self.assert_leaves_no_trace()

    def test_no_hooks_folder_was_there(self) -> None:
        for file in (self.bare / "hooks").iterdir():
            file.unlink()
        (self.bare / "hooks").rmdir()
        self.assert_leaves_no_trace()

    def test_a_hook_was_there(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive", mode=0o750)
        self.assert_leaves_no_trace()

    def test_a_hook_that_may_not_be_executed_was_there(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive", mode=0o640)
        self.assert_leaves_no_trace()

    def test_a_link_to_a_hook_was_there(self) -> None:
        self.write_hook(self.folder / "elsewhere" / "hook")
        (self.bare / "hooks" / "post-receive").symlink_to("../../elsewhere/hook")
        self.assert_leaves_no_trace()

    def test_settings_were_there(self) -> None:
        git(self.bare, "config", "receive.advertisePushOptions", "false")
        git(self.bare, "config", "--add", "receive.hideRefs", "refs/secret")
        git(self.bare, "config", "--add", "receive.hideRefs", "refs/other")
        git(self.bare, "config", "receive.denyDeletes", "false")
        git(self.bare, "config", "core.logAllRefUpdates", "false")
        self.assert_leaves_no_trace()

    def test_logs_of_refs_that_were_not_there_go_with_it(self) -> None:
        self.install()
        self.pushed()
        self.assertTrue((self.bare / "logs" / "refs" / "heads" / "main").exists())
        remove_hook(self.bare)
        self.assertFalse((self.bare / "logs").exists())

    def test_logs_of_refs_that_were_there_stay(self) -> None:
        git(self.bare, "config", "core.logAllRefUpdates", "true")
        self.tree.commit()
        self.tree.push("main")
        git(self.bare, "config", "--unset", "core.logAllRefUpdates")
        self.install()
        remove_hook(self.bare)
        self.assertTrue((self.bare / "logs" / "refs" / "heads" / "main").exists())

    def test_our_settings_were_there(self) -> None:
        git(self.bare, "config", "receive.advertisePushOptions", "true")
        git(self.bare, "config", "receive.hideRefs", "refs/ciapp")
        self.assert_leaves_no_trace()

    def test_a_setting_without_a_value_was_there(self) -> None:
        with (self.bare / "config").open("a") as config:
            config.write("[receive]\n\tadvertisePushOptions\n")
        self.assert_leaves_no_trace()

    def test_a_setting_that_was_changed_since_stays(self) -> None:
        self.install()
        git(self.bare, "config", "receive.advertisePushOptions", "false")
        git(self.bare, "config", "--add", "receive.hideRefs", "refs/later")

        remove_hook(self.bare)

        self.assertEqual("false", git(self.bare, "config", "receive.advertisePushOptions"))
        self.assertEqual("refs/later", git(self.bare, "config", "--get-all", "receive.hideRefs"))

    def test_it_says_what_was_done(self) -> None:
        self.write_hook(self.bare / "hooks" / "post-receive")
        self.install()
        self.pushed()

        said = "\n".join(remove_hook(self.bare))

        self.assertIn("hook of team removed", said)
        self.assertIn("post-receive again", said)
        self.assertIn("no dispatcher had read: 1", said)

    def test_a_repository_without_our_hook(self) -> None:
        with self.assertRaisesRegex(UsageError, "nothing to remove"):
            remove_hook(self.bare)

    def test_pushes_go_on_without_it(self) -> None:
        self.install()
        remove_hook(self.bare)
        self.tree.commit()

        self.assertEqual([], self.push("main"))


class TestSharedHooks(InstallTest):
    """core.hooksPath leads to a folder that other repositories use as well."""

    def setUp(self) -> None:
        super().setUp()
        self.shared = self.folder / "shared-hooks"
        self.write_hook(self.shared / "post-receive")
        self.write_hook(self.shared / "pre-receive", "#!/bin/sh\necho before\ncat >/dev/null\n")
        (self.shared / "helper").write_text("helped\n")
        self.before = snapshot(self.shared)

    def share(self, path: str | None = None) -> None:
        git(self.bare, "config", "core.hooksPath", path or str(self.shared))

    def assert_all_hooks_run(self) -> None:
        said = self.pushed()
        self.assertEqual("before", said[0])
        self.assertIn("recorded 1 ref update", said[1])
        self.assertIn("curious: post-receive in", said[2])
        self.assertIn("helped", said)
        self.assertEqual(self.before, snapshot(self.shared))

    def test_the_shared_folder_is_not_written_and_all_its_hooks_run(self) -> None:
        self.share()
        installed = self.install()

        self.assertEqual(self.shared / "post-receive", installed.chained)
        self.assertTrue(is_installed(self.bare))
        self.assert_all_hooks_run()

    def test_another_repository_of_that_folder_is_not_touched(self) -> None:
        self.share()
        other = new_bare_repository(self, "other.git")
        git(other, "config", "core.hooksPath", str(self.shared))
        self.install()
        tree = WorkTree(self, other)
        tree.commit()

        self.assertNotIn("ciapp", tree.push("main"))

    def test_installing_again_keeps_the_chain(self) -> None:
        self.share()
        self.install()
        before = snapshot(self.bare)

        self.install()

        self.assertEqual(before, snapshot(self.bare))
        self.assert_all_hooks_run()

    def test_it_leaves_no_trace(self) -> None:
        self.share()
        self.assert_leaves_no_trace()
        self.assertEqual(self.before, snapshot(self.shared))

    def test_a_hook_that_is_added_to_the_shared_folder_later_runs(self) -> None:
        self.share()
        self.install()
        self.write_hook(self.shared / "update", "#!/bin/sh\necho update of $1\n")

        self.assertIn("update of refs/heads/main", self.pushed())

    def test_a_shared_folder_without_post_receive(self) -> None:
        (self.shared / "post-receive").unlink()
        self.share()
        self.assertIsNone(self.install().chained)

        self.assertEqual(2, len(self.pushed()))

    def test_a_hooks_folder_that_is_a_link_to_a_shared_one(self) -> None:
        for file in (self.bare / "hooks").iterdir():
            file.unlink()
        (self.bare / "hooks").rmdir()
        (self.bare / "hooks").symlink_to(self.shared)
        before = snapshot(self.bare)
        self.install()

        self.assert_all_hooks_run()
        remove_hook(self.bare)
        self.assertEqual(before, snapshot(self.bare))

    def test_a_folder_inside_the_repository_is_its_own(self) -> None:
        self.write_hook(self.bare / "my-hooks" / "post-receive")
        self.share("my-hooks")
        installed = self.install()

        self.assertEqual(self.bare / "my-hooks" / "post-receive", installed.hook)
        self.assertIn("curious: post-receive", self.pushed()[1])
        remove_hook(self.bare)
        self.assertEqual(CURIOUS, (self.bare / "my-hooks" / "post-receive").read_text())

    def test_hooks_switched_off_by_a_path_that_is_no_folder(self) -> None:
        self.share("/dev/null")
        self.install()

        self.assertIn("recorded 1 ref update", self.pushed()[0])
        remove_hook(self.bare)
        self.assertEqual("/dev/null", git(self.bare, "config", "core.hooksPath"))

    def test_a_hooks_path_that_is_set_after_the_install_is_followed(self) -> None:
        self.install()
        self.share()
        self.assertFalse(is_installed(self.bare))

        self.install()

        self.assertFalse((self.bare / "hooks" / "post-receive").exists())
        self.assert_all_hooks_run()
        remove_hook(self.bare)
        self.assertEqual(str(self.shared), git(self.bare, "config", "core.hooksPath"))
        self.assertNotIn("receive.", git(self.bare, "config", "--list", "--local"))

    def test_a_hooks_path_that_no_value_of_ours_outranks_is_said(self) -> None:
        git(self.bare, "config", "extensions.worktreeConfig", "true")
        git(self.bare, "config", "--worktree", "core.hooksPath", str(self.shared))

        with self.assertRaisesRegex(HookError, "unset core.hooksPath"):
            self.install()

    def test_a_work_tree_with_hooks_under_version_control(self) -> None:
        project = self.folder / "project"
        project.mkdir()
        git(project, "init", "--quiet", "--initial-branch=main")
        git(project, "config", "core.hooksPath", ".githooks")
        self.write_hook(project / ".githooks" / "pre-commit", "#!/bin/sh\necho ran >pre-commit-ran\n")
        self.install(project)

        git(project, "commit", "--quiet", "--allow-empty", "--message=x")

        self.assertEqual("ran\n", (project / "pre-commit-ran").read_text())
        self.bare = project / ".git"
        self.listen()
        self.tree.commit()
        self.tree.git("push", "--quiet", str(project), "main:refs/heads/topic")
        self.assertEqual(1, len(self.records()))
        self.assertEqual({"pre-commit"}, {entry.name for entry in (project / ".githooks").iterdir()})
