from __future__ import annotations

import fcntl
import os
import shutil
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

from ciapp.errors import CheckoutError
from ciapp.testing import mirror
from ciapp.testing.mirror import Mirror
from tests.support.git_repositories import WorkTree, git, new_folder
from tests.support.installation import eventually

ROOT = os.geteuid() == 0
NOBODY = 65534


class TestMirror(unittest.TestCase):
    def setUp(self) -> None:
        self.state = new_folder(self) / "state"
        self.origin = WorkTree(self, self.state)
        self.url = str(self.origin.path / ".git")
        self.mirror = Mirror(self.state, "team")

    def ensure(self, commit: str) -> None:
        self.mirror.ensure_commit(self.url, commit)
        git(self.mirror.path, "rev-list", "--objects", "--quiet", commit)

    def lose(self, *revisions: str) -> None:
        """Remove objects from the mirror."""
        for pack in self.mirror.objects.glob("pack/*.pack"):
            kept = pack.rename(pack.parent.parent / pack.name)
            git(self.mirror.path, "unpack-objects", "-q", stdin=kept.read_bytes())
            for file in (kept, pack.with_suffix(".idx"), pack.with_suffix(".rev")):
                file.unlink(missing_ok=True)
        for revision in revisions:
            name = git(self.origin.path, "rev-parse", revision)
            (self.mirror.objects / name[:2] / name[2:]).unlink()

    def test_a_commit_is_fetched_with_all_it_reaches(self) -> None:
        self.ensure(self.origin.commit("Change", {"a/b.py": "x = 1\n"}))

    def test_a_commit_that_is_here_is_not_fetched_again(self) -> None:
        commit = self.origin.commit("Change", {"a.py": ""})
        self.ensure(commit)
        shutil.rmtree(self.origin.path)
        self.ensure(commit)

    def test_a_commit_of_any_branch_or_tag_is_found(self) -> None:
        self.ensure(self.origin.commit())
        self.origin.git("checkout", "-q", "-b", "side/way")
        side = self.origin.commit()
        self.ensure(side)
        self.origin.git("checkout", "-q", "--detach")
        tagged = self.origin.commit()
        self.origin.git("tag", "v1")
        self.ensure(tagged)

    def test_a_branch_may_take_the_place_of_a_folder_of_branches(self) -> None:
        self.origin.commit()
        self.origin.git("checkout", "-q", "-b", "way/one")
        self.ensure(self.origin.commit())
        self.origin.git("checkout", "-q", "--detach")
        self.origin.git("branch", "-q", "-D", "way/one")
        self.origin.git("checkout", "-q", "-b", "way")
        self.ensure(self.origin.commit())

    def test_a_tip_that_was_forced_away_is_found_where_it_is_pinned(self) -> None:
        self.ensure(self.origin.commit())
        forced_away = self.origin.commit()
        self.origin.git("update-ref", "refs/ciapp/1", forced_away)
        self.origin.git("reset", "-q", "--hard", "HEAD~1")
        self.ensure(forced_away)

    def test_a_commit_below_no_ref_is_asked_for_by_its_id(self) -> None:
        self.ensure(self.origin.commit())
        forced_away = self.origin.commit()
        self.origin.git("reset", "-q", "--hard", "HEAD~1")
        self.ensure(forced_away)

    def test_a_commit_that_nobody_has_is_told_with_both_names(self) -> None:
        self.ensure(self.origin.commit())
        missing = "1" * 40
        said = f"^{missing} cannot be fetched from {self.url}: .*not our ref"
        with self.assertRaisesRegex(CheckoutError, said):
            self.ensure(missing)

    def test_a_repository_that_is_gone_is_told(self) -> None:
        self.url = "/nowhere/team.git"
        with self.assertRaisesRegex(CheckoutError, "cannot be fetched from /nowhere/team.git"):
            self.ensure("1" * 40)
        self.assertFalse(self.mirror.path.exists())

    def test_no_protocol_that_runs_programs_is_used(self) -> None:
        for url in ("ext::sh -c touch% ran", "--upload-pack=touch ran"):
            with self.assertRaises(CheckoutError):
                self.mirror.ensure_commit(url, "1" * 40)

    def test_a_commit_that_a_fetch_is_just_unpacking_is_waited_for(self) -> None:
        commit = self.origin.commit("Change", {"a.py": "a = 1\n"})
        self.ensure(commit)
        self.lose()
        name = git(self.origin.path, "rev-parse", f"{commit}:a.py")
        file = self.mirror.objects / name[:2] / name[2:]
        late = file.rename(file.with_suffix(".late"))
        looks: list[None] = []
        waiting = Mirror(self.state, "team", should_stop=lambda: bool(looks.append(None)))
        with self.mirror.path.with_suffix(".lock").open("w") as fetch, ThreadPoolExecutor() as pool:
            fcntl.flock(fetch, fcntl.LOCK_EX)
            try:
                ensured = pool.submit(waiting.ensure_commit, "/nowhere", commit)
                eventually(lambda: looks, "it waits for the lock")
                late.rename(file)
            finally:
                fcntl.flock(fetch, fcntl.LOCK_UN)
            ensured.result()

    def test_a_lost_object_is_fetched_again_with_a_new_mirror(self) -> None:
        first = self.origin.commit("One", {"a.py": "a\n"})
        self.ensure(first)
        self.lose(f"{first}^{{tree}}")
        self.ensure(first)

    def test_a_mirror_whose_history_is_damaged_is_replaced(self) -> None:
        first = self.origin.commit("One", {"a.py": "a\n"})
        self.ensure(first)
        self.lose(first, "HEAD:a.py")
        self.ensure(self.origin.commit("Two", {"b.py": "b\n"}))

    def test_a_mirror_that_is_no_repository_is_replaced(self) -> None:
        self.ensure(self.origin.commit())
        (self.mirror.path / "HEAD").write_text("")
        self.ensure(self.origin.commit())

    def test_what_a_broken_off_fetch_left_is_no_hindrance(self) -> None:
        self.mirror.path.with_suffix(".new").mkdir(parents=True)
        self.mirror.path.with_suffix(".new").joinpath("HEAD").write_text("")
        self.ensure(self.origin.commit())
        self.assertEqual(
            ["team.git", "team.lock"], sorted(path.name for path in self.mirror.path.parent.iterdir())
        )

    def test_slots_that_ask_at_once_all_get_it(self) -> None:
        commits = [self.origin.commit("Change", {"a.py": str(number)}) for number in range(6)]
        with ThreadPoolExecutor(6) as slots:
            asked = [
                slots.submit(Mirror(self.state, "team").ensure_commit, self.url, commit) for commit in commits
            ]
            for answer in asked:
                answer.result()
        for commit in commits:
            self.ensure(commit)

    def test_many_small_fetches_are_packed_without_a_loss(self) -> None:
        self.ensure(self.origin.commit("One", {"a.py": "1"}))
        forced_away = self.origin.commit("Two", {"a.py": "2"})
        self.ensure(forced_away)
        self.origin.git("reset", "-q", "--hard", "HEAD~1")
        with mock.patch.object(mirror, "MOST_PACKS", -1):
            self.ensure(self.origin.commit("Three", {"a.py": "3"}))
        loose = list(self.mirror.objects.glob("??/*"))
        self.assertEqual([], loose)
        shutil.rmtree(self.origin.path)
        self.ensure(forced_away)

    def test_one_commit_is_written_as_files_and_a_push_of_many_as_one_pack(self) -> None:
        def stored() -> tuple[int, int]:
            return len(list(self.mirror.objects.glob("??/*"))), len(list(packs.glob("*.pack")))

        packs = self.mirror.objects / "pack"
        self.ensure(self.origin.commit("First", {"a.py": "0"}))
        files, number = stored()
        self.ensure(self.origin.commit("One", {"a.py": "1"}))
        self.assertEqual((files + 3, number), stored())
        self.ensure([self.origin.commit("Many", {"a.py": f"{each} of many"}) for each in range(10)][-1])
        self.assertEqual((files + 3, number + 1), stored())

    def test_a_sha256_repository_has_a_sha256_mirror(self) -> None:
        self.origin = WorkTree(self, self.state, "--object-format=sha256")
        self.url = str(self.origin.path / ".git")
        self.ensure(self.origin.commit("Change", {"a.py": ""}))

    def test_tags_are_told_and_branches_are_not(self) -> None:
        commit = self.origin.commit()
        self.origin.git("tag", "light")
        self.origin.git("tag", "-a", "-m", "One", "heavy")
        self.ensure(commit)
        heavy = self.origin.git("rev-parse", "heavy")
        self.assertEqual(
            f"{heavy} refs/tags/heavy\n^{commit}\n{commit} refs/tags/light\n", self.mirror.tag_refs()
        )

    def test_objects_are_readable_by_slots_whatever_the_umask(self) -> None:
        previous = os.umask(0o077)
        self.addCleanup(os.umask, previous)
        self.ensure(self.origin.commit("Change", {"a.py": "x"}))
        closed = [
            path
            for path in (self.mirror.objects, *self.mirror.objects.rglob("*"))
            if not path.stat().st_mode & 0o004
        ]
        self.assertEqual([], closed)

    def test_configuration_of_the_users_is_not_read(self) -> None:
        home = new_folder(self)
        (home / ".gitconfig").write_text(f'[url "/nowhere/"]\n\tinsteadOf = {self.origin.path}\n')
        previous = os.environ["HOME"]
        os.environ["HOME"] = str(home)
        self.addCleanup(os.environ.__setitem__, "HOME", previous)
        self.ensure(self.origin.commit())

    @unittest.skipUnless(ROOT, "only root can give files away")
    def test_a_repository_of_another_user_can_be_fetched(self) -> None:
        commit = self.origin.commit()
        for path in (self.origin.path, *self.origin.path.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        Path(self.url).joinpath("hooks").mkdir(exist_ok=True)
        self.mirror.ensure_commit(self.url, commit)
