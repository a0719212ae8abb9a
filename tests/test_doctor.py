"""`ciapp doctor`: each part made red for real, and what is said of it."""

from __future__ import annotations

import os
import re
import shutil
import time
import unittest
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from sqlalchemy import text

from ciapp import doctor
from ciapp.intake.presence import is_dispatcher_alive
from ciapp.results.database import Database
from ciapp.results.workers import list_workers
from ciapp.settings import Settings
from tests.support.installation import PASSING, Installation, eventually
from tests.support.ledgers import fresh_postgresql
from tests.support.servers import free_port, standard_rabbitmq_url

LINE = re.compile(r"(ok|warn|FAIL) +(.{16}) (.*)")


class Line(NamedTuple):
    """What doctor says of one part."""

    mark: str
    fact: str
    advice: str = ""


class TestDoctor(unittest.TestCase):
    def setUp(self) -> None:
        self.ci = Installation(self, 'host = "here"')

    def examine(self, code: int) -> dict[str, Line]:
        """The parts that doctor looked at, and what it says of each."""
        found: dict[str, Line] = {}
        part = ""
        for line in self.ci.ciapp("doctor", code=code).splitlines():
            if matched := LINE.fullmatch(line):
                part = matched[2].strip()
                found[part] = Line(matched[1], matched[3])
            else:
                self.assertIn("→ ", line)
                found[part] = found[part]._replace(advice=line.partition("→ ")[2])
        for part, said in found.items():
            if said.mark == "FAIL":
                self.assertRegex(said.fact + said.advice, "[;`]| ", part)
        return found

    def set(self, line: str) -> None:
        """Put a setting into the file, in place of what it has."""
        name = line.partition(" ")[0]
        kept = [each for each in self.ci.config.read_text().splitlines() if not each.startswith(f"{name} ")]
        self.ci.config.write_text("\n".join([line, *kept]) + "\n")

    @property
    def bare(self) -> Path:
        return self.ci.folder / "team.git"

    def test_an_installation_that_works_is_ok_in_every_part(self) -> None:
        clone = self.ci.make_repository()
        self.ci.start_all()
        self.ci.report(self.ci.push_commit(clone, {"tests/test_a.py": PASSING}))
        eventually(lambda: list_workers(self.ci.database), "the worker is there")
        found = self.examine(0)

        parts = [
            "settings",
            "git",
            "disk",
            "sandbox",
            "pythons",
            "broker",
            "outbox",
            "database",
            "migrations",
            "clock",
            "worker",
        ]
        parts += [f"team {part}" for part in ("hook", "spool", "dispatcher", "refs", "mirror")]
        self.assertEqual(parts, list(found))
        bad = {part: said for part, said in found.items() if said.mark != "ok"}
        # Some machines have no bubblewrap; all else must be well.
        self.assertLessEqual(set(bad), {"sandbox"}, bad)

    def test_what_a_fresh_machine_lacks_is_no_failure(self) -> None:
        self.assertEqual(("warn", "none"), self.examine(0)["workers"][:2])

    def test_a_broker_that_does_not_answer_or_turns_us_away_is_red(self) -> None:
        for url in (
            f"amqp://ann:secret@127.0.0.1:{free_port()}//",
            f"redis://:secret@127.0.0.1:{free_port()}/0",
        ):
            self.set(f'broker_url = "{url}"')
            said = self.examine(3)["broker"]
            self.assertEqual("FAIL", said.mark)
            self.assertRegex(said.fact, r"does not answer: .*refused")
            self.assertEqual("start it, or correct broker_url in the settings", said.advice)
            self.assertNotIn("secret", said.fact)

    def test_a_broker_that_turns_us_away_is_red(self) -> None:
        url = re.sub(r"//[^@]*@", "//nobody:wrong@", standard_rabbitmq_url())
        self.set(f'broker_url = "{url}"')
        said = self.examine(3)["broker"]
        self.assertEqual("FAIL", said.mark)
        self.assertIn("ACCESS_REFUSED", said.fact)

    def test_an_embedded_broker_whose_folder_is_in_the_way_is_red(self) -> None:
        (self.ci.folder / "state").mkdir(mode=0o711)
        (self.ci.folder / "state" / "broker").touch()
        self.assertEqual("FAIL", self.examine(3)["broker"].mark)

    def test_a_database_that_does_not_answer_is_red(self) -> None:
        self.set(f'database_url = "postgresql://ann:secret@127.0.0.1:{free_port()}/ciapp"')
        said = self.examine(3)["database"]
        self.assertEqual(
            ("FAIL", "start it, or correct database_url in the settings"), (said.mark, said.advice)
        )
        self.assertNotIn("secret", said.fact)
        self.assertNotIn("ciapp doctor", said.fact)

    def test_a_database_of_a_newer_version_is_red(self) -> None:
        self.ci.ciapp("status")
        with self.ci.database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        found = self.examine(3)
        self.assertEqual(("ok", "FAIL"), (found["database"].mark, found["migrations"].mark))
        self.assertIn("9999", found["migrations"].fact)

    def test_no_git_is_red(self) -> None:
        self.ci.environment["PATH"] = str(self.ci.folder)
        self.assertEqual(Line("FAIL", "there is no git on the PATH", "install it"), self.examine(3)["git"])

    def test_no_sandbox_is_a_warning_and_red_when_it_is_required(self) -> None:
        programs = self.ci.folder / "bin"
        programs.mkdir()
        (programs / "git").symlink_to(shutil.which("git"))
        self.ci.environment["PATH"] = str(programs)
        self.set('sandbox = "off-as-root"')
        said = self.examine(0)["sandbox"]
        self.assertEqual(
            ("warn", "install bubblewrap, or mend what the reason says"), (said.mark, said.advice)
        )
        self.set('sandbox = "required"')
        self.assertEqual("FAIL", self.examine(3)["sandbox"].mark)

    @unittest.skipUnless(os.geteuid() == 0, "nobody but root is root")
    def test_tests_that_would_be_root_are_red(self) -> None:
        self.ci.folder.chmod(0o700)
        self.set('sandbox = "off"')
        said = self.examine(3)["sandbox"]
        self.assertEqual("FAIL", said.mark)
        self.assertIn("tests would be root on this host", said.fact)
        self.assertIn('sandbox = "off-as-root"', said.advice)

    def test_a_hook_that_is_gone_or_cannot_start_ciapp_is_red(self) -> None:
        self.ci.make_repository()
        conf = self.bare / "ciapp" / "hook.conf"
        conf.write_text(
            re.sub(r"(?m)^ciapp_command=.*$", "ciapp_command='/no/python -m ciapp.cli'", conf.read_text())
        )
        again = f"run `ciapp hook install {self.bare} --name team` again"
        self.assertEqual(
            Line("FAIL", "it cannot start ciapp: /no/python is missing", again), self.examine(3)["team hook"]
        )
        (self.bare / "hooks" / "post-receive").unlink()
        self.assertEqual(
            Line("FAIL", f"git does not call it in {self.bare}", again), self.examine(3)["team hook"]
        )
        self.ci.ciapp("hook", "install", str(self.bare))
        self.assertEqual("ok", self.examine(0)["team hook"].mark)
        self.ci.git("config", "--unset", "core.logAllRefUpdates", cwd=self.bare)
        line = self.examine(0)["team hook"]
        self.assertEqual(("warn", again), (line.mark, line.advice))
        self.assertIn("git does not log the refs", line.fact)
        self.ci.ciapp("hook", "remove", str(self.bare))
        self.assertEqual("warn", self.examine(0)["team"].mark)

    def test_a_repository_that_is_gone_or_damaged_is_red(self) -> None:
        self.ci.make_repository()
        (self.bare / "HEAD").rename(self.bare / "HEAD.lost")
        self.assertEqual("FAIL", self.examine(3)["team refs"].mark)
        shutil.rmtree(self.bare)
        said = self.examine(3)["team"]
        self.assertEqual(("FAIL", f"{self.bare} is gone"), said[:2])
        self.assertIn("--moved", said.advice)

    def test_a_machine_with_a_new_name_is_red_where_its_repository_is(self) -> None:
        self.ci.make_repository()
        self.set('host = "new"')
        said = self.examine(3)["team"]
        self.assertEqual("FAIL", said.mark)
        self.assertIn("which the ledger knows as here and which is new now", said.fact)
        self.assertEqual(f'set host = "here", or run `ciapp hook install {self.bare} --moved`', said.advice)
        self.ci.ciapp("hook", "install", str(self.bare), "--moved")
        self.assertEqual("ok", self.examine(0)["team hook"].mark)
        shutil.rmtree(self.bare)
        self.set('host = "other"')
        self.assertEqual(Line("ok", "is on new; look there"), self.examine(0)["team"])

    def test_a_spool_that_nobody_reads_is_red_and_rejected_files_are_a_warning(self) -> None:
        self.ci.make_repository()
        spool = self.bare / "ciapp" / "spool"
        record = spool / "1-1-aaaa"
        record.touch()
        os.utime(record, (time.time() - 300,) * 2)
        said = self.examine(3)
        self.assertRegex(said["team spool"].fact, r"^1 record waits, the oldest for 3\d\d s$")
        self.assertEqual(("warn", "none"), said["team dispatcher"][:2])
        self.assertFalse(is_dispatcher_alive(self.bare))
        (spool / "rejected").mkdir()
        record.rename(spool / "rejected" / "1-1-aaaa")
        shutil.rmtree(spool)
        again = f"run `ciapp hook install {self.bare} --name team` again"
        said = self.examine(3)
        self.assertEqual(("FAIL", again), (said["team spool"].mark, said["team spool"].advice))
        self.assertEqual("ok", said["team refs"].mark)

    def test_a_damaged_mirror_is_red(self) -> None:
        self.ci.make_repository()
        mirror = self.ci.folder / "state" / "mirrors" / "team.git"
        mirror.mkdir(parents=True)
        said = self.examine(3)["team mirror"]
        self.assertEqual(("FAIL", f"delete {mirror}; the next run fetches it anew"), (said.mark, said.advice))

    def test_runs_that_wait_for_a_worker_that_is_not_there_are_red(self) -> None:
        clone = self.ci.make_repository()
        self.ci.push_commit(clone, {"tests/test_a.py": PASSING})
        eventually(lambda: self.examine_quietly("workers").mark == "FAIL", "the run waits")

    def examine_quietly(self, part: str) -> Line:
        """One part, whatever the others are."""
        for line in self.ci.ciapp("doctor", code=None).splitlines():
            if (matched := LINE.fullmatch(line)) and matched[2].strip() == part:
                return Line(matched[1], matched[3])
        raise AssertionError(part)

    def test_reports_that_wait_to_be_stored_are_a_warning(self) -> None:
        outbox = self.ci.folder / "state" / "outbox"
        outbox.mkdir(parents=True)
        (outbox / "1-1.report").touch()
        self.assertEqual(("warn", "1 reports wait to be stored"), self.examine(0)["outbox"][:2])


class TestBounds(unittest.TestCase):
    """Parts whose red cannot be made without filling a disk or turning a clock."""

    def test_a_disk_that_is_nearly_full_is_red(self) -> None:
        with mock.patch.object(doctor, "LOW_DISK_MIB", 1 << 40):
            [said] = doctor._check_disk(Settings(state_dir=str(Path(__file__).parent)))
        self.assertIs(doctor.Mark.FAIL, said.mark)
        self.assertEqual("make room there, or set state_dir elsewhere", said.advice)

    def test_an_old_git_is_red(self) -> None:
        with mock.patch.object(doctor, "OLDEST_GIT", (99, 0)):
            [said] = doctor._check_git()
        self.assertEqual((doctor.Mark.FAIL, "install git 99.0 or newer"), (said.mark, said.advice))

    def test_a_clock_apart_from_the_databases_is_a_warning(self) -> None:
        database = fresh_postgresql(self)
        [said] = doctor._check_clock(database)
        self.assertIs(doctor.Mark.OK, said.mark)
        with mock.patch.object(Database, "now", return_value=datetime.now(UTC) - timedelta(hours=1)):
            [said] = doctor._check_clock(database)
        self.assertIs(doctor.Mark.WARN, said.mark)
        self.assertIn("synchronise", said.advice)


if __name__ == "__main__":
    unittest.main()
