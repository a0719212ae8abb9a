"""ciapp/intake/spool.py on whatever may lie in a spool."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
import unittest
from datetime import UTC, datetime
from pathlib import Path

from ciapp.intake.push import RefUpdate
from ciapp.intake.spool import SIZE_LIMIT, SpoolRecord, read_records, spool_folder
from tests.support.git_repositories import new_folder

NULL, A, B = "0" * 40, "a" * 40, "b" * 40
RECORD = (
    "ciapp-push 2\npusher ann\noption ci.skip\noption two words\n\n"
    f"{NULL} {A} refs/heads/main\n{A} {B} refs/heads/topic\n"
).encode()


class TestSpool(unittest.TestCase):
    def setUp(self) -> None:
        self.git_dir = new_folder(self)
        self.spool = spool_folder(self.git_dir)
        self.spool.mkdir(parents=True)

    def write(self, name: str, content: bytes = RECORD, written_at_s: float | None = None) -> Path:
        file = self.spool / name
        file.write_bytes(content)
        if written_at_s is not None:
            os.utime(file, (written_at_s, written_at_s))
        return file

    def assert_rejected(self, name: str, reason: str) -> None:
        """The file is out of the way and said; a good record beside it is read."""
        self.write("zz-good")
        with self.assertLogs("ciapp.intake.spool", "WARNING") as logs:
            self.assertEqual(["zz-good"], [record.id for record in read_records(self.git_dir)])
        [warning] = logs.records
        self.assertEqual(str(self.spool / name), vars(warning)["path"])
        self.assertIn(reason, vars(warning)["reason"])
        self.assertFalse(os.path.lexists(self.spool / name))
        self.assertTrue(os.path.lexists(self.spool / "rejected" / name))
        with self.assertNoLogs("ciapp.intake.spool"):
            read_records(self.git_dir)

    def test_a_record_is_read_whole(self) -> None:
        path = self.write("aaaa-7", written_at_s=1700000000.25)

        self.assertEqual(
            [
                SpoolRecord(
                    id="aaaa-7",
                    path=path,
                    received_at=datetime.fromtimestamp(1700000000.25, UTC),
                    pusher="ann",
                    options=("ci.skip", "two words"),
                    updates=(RefUpdate(NULL, A, "refs/heads/main"), RefUpdate(A, B, "refs/heads/topic")),
                )
            ],
            read_records(self.git_dir),
        )

    def test_a_discarded_record_is_gone(self) -> None:
        self.write("1")
        [record] = read_records(self.git_dir)

        record.discard()
        record.discard()

        self.assertEqual([], read_records(self.git_dir))

    def test_a_repository_without_spool_has_no_records(self) -> None:
        self.spool.rmdir()

        self.assertEqual([], read_records(self.git_dir))

    def test_records_come_oldest_first(self) -> None:
        for name, later_s in (("a", 0.003), ("b", 0.001), ("c", 0.002), ("d", -30.0)):
            self.write(name, written_at_s=1700000000 + later_s)

        self.assertEqual(["d", "b", "c", "a"], [record.id for record in read_records(self.git_dir)])

    def test_a_record_whose_name_is_not_utf_8_is_rejected(self) -> None:
        name = os.fsdecode(b"caf\xe9")
        self.write(name)
        self.assert_rejected(name, "its name is not UTF-8")

    def test_a_record_whose_name_is_odd_is_read(self) -> None:
        self.write("a b\n\x1b[31mé")

        self.assertEqual(["a b\n\x1b[31mé"], [record.id for record in read_records(self.git_dir)])

    def test_a_record_of_an_earlier_hook_is_read(self) -> None:
        self.write("1700000000-7-aaaa", RECORD.replace(b"pusher", b"time 1700000000\npusher"))

        [record] = read_records(self.git_dir)

        self.assertEqual(("ann", ("ci.skip", "two words")), (record.pusher, record.options))

    def test_sha256_ids_are_read(self) -> None:
        self.write(
            "1",
            RECORD.replace(NULL.encode(), b"0" * 64)
            .replace(A.encode(), b"c" * 64)
            .replace(B.encode(), b"d" * 64),
        )

        self.assertEqual("c" * 64, read_records(self.git_dir)[0].updates[0].new)

    def test_ref_names_and_options_of_any_bytes_survive(self) -> None:
        odd = b"\xff\xc3\x28\x85\x1b[31m\r\x0b"
        self.write("1", RECORD.replace(b"two words", odd).replace(b"topic", odd).replace(b"ann", odd))

        [record] = read_records(self.git_dir)

        self.assertEqual(odd, record.options[1].encode("utf-8", "surrogateescape"))
        self.assertEqual(b"refs/heads/" + odd, record.updates[1].ref.encode("utf-8", "surrogateescape"))
        self.assertEqual(odd, record.pusher.encode("utf-8", "surrogateescape"))

    def test_a_record_cut_anywhere_is_rejected_or_has_whole_lines(self) -> None:
        self.write("whole", written_at_s=1)
        for length in range(len(RECORD)):
            self.write(f"cut-{length:03}", RECORD[:length], written_at_s=2)

        with self.assertLogs("ciapp.intake.spool", "WARNING") as logs:
            whole, cut = read_records(self.git_dir)
        self.assertEqual(RECORD.index(b"\n", RECORD.index(b"\n\n") + 2) + 1, cut.path.stat().st_size)
        self.assertEqual((whole.pusher, whole.options), (cut.pusher, cut.options))
        self.assertEqual(whole.updates[:1], cut.updates)
        self.assertEqual(len(RECORD) - 1, len(logs.records))
        self.assertEqual(len(RECORD) - 1, len(list((self.spool / "rejected").iterdir())))

    def test_an_empty_file_is_rejected(self) -> None:
        self.write("empty", b"")
        self.assert_rejected("empty", "empty")

    def test_a_foreign_file_is_rejected(self) -> None:
        self.write("README.txt", b"Hello\n")
        self.assert_rejected("README.txt", "first line")

    def test_a_record_of_the_older_form_is_read_once_it_is_whole(self) -> None:
        old = RECORD.replace(b"ciapp-push 2", b"ciapp-push 1")
        self.write("old", old + b"end\n")
        [record] = read_records(self.git_dir)
        self.write("new")
        self.assertEqual(record.updates, read_records(self.git_dir)[1].updates)
        self.write("old", old)
        (self.spool / "new").unlink()
        self.assert_rejected("old", "it has no end")

    def test_a_record_of_another_version_is_rejected(self) -> None:
        self.write("new", RECORD.replace(b"ciapp-push 2", b"ciapp-push 3"))
        self.assert_rejected("new", "first line")

    def test_binary_content_is_rejected(self) -> None:
        self.write("binary", bytes(range(256)) * 1000)
        self.assert_rejected("binary", "first line")

    def test_a_file_of_zeros_is_rejected(self) -> None:
        self.write("zeros", bytes(5000))
        self.assert_rejected("zeros", "first line")

    def test_a_line_that_is_no_ref_update_is_rejected(self) -> None:
        for number, line in enumerate(
            (
                b"rubbish",
                f"{A} {B}".encode(),
                f"{A} {'b' * 64} refs/x".encode(),
                f"{A} {B} HEAD".encode(),
                b"",
            )
        ):
            with self.subTest(line=line):
                name = f"bad-{number}"
                self.write(name, RECORD.replace(f"{A} {B} refs/heads/topic".encode(), line))
                self.assert_rejected(name, "no ref update")

    def test_a_huge_file_is_rejected_without_being_read(self) -> None:
        os.truncate(self.write("huge"), 1000 * SIZE_LIMIT)
        started = time.monotonic()
        self.assert_rejected("huge", "bytes")
        self.assertLess(time.monotonic() - started, 5)

    def test_a_symbolic_link_is_not_followed(self) -> None:
        target = self.git_dir / "elsewhere"
        target.write_bytes(RECORD)
        (self.spool / "link").symlink_to(target)
        self.assert_rejected("link", "cannot be opened")
        self.assertTrue(target.exists())

    def test_a_fifo_keeps_nobody_waiting(self) -> None:
        os.mkfifo(self.spool / "fifo")
        self.assert_rejected("fifo", "not a regular file")

    def test_a_folder_is_rejected(self) -> None:
        (self.spool / "folder").mkdir()
        (self.spool / "folder" / "file").write_text("x")
        self.assert_rejected("folder", "not a regular file")

    def test_a_second_file_of_a_rejected_name_is_kept_too(self) -> None:
        for content in (b"first", b"second"):
            self.write("foreign", content)
            with self.assertLogs("ciapp.intake.spool", "WARNING"):
                read_records(self.git_dir)

        kept = sorted(file.read_bytes() for file in (self.spool / "rejected").iterdir())
        self.assertEqual([b"first", b"second"], kept)

    def test_a_part_that_is_being_written_is_left_alone(self) -> None:
        part = self.write(".aaaa-7.part", RECORD[:20])

        with self.assertNoLogs("ciapp.intake.spool"):
            self.assertEqual([], read_records(self.git_dir))
        self.assertTrue(part.exists())

    def test_a_part_of_a_killed_hook_is_removed(self) -> None:
        part = self.write(".aaaa-7.part", RECORD[:20])
        an_hour_ago = time.time() - 3700
        os.utime(part, (an_hour_ago, an_hour_ago))

        with self.assertLogs("ciapp.intake.spool", "WARNING"):
            self.assertEqual([], read_records(self.git_dir))
        self.assertFalse(part.exists())

    def test_a_spool_that_cannot_be_changed_is_said_and_the_records_are_read(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root may become another user")
        self.git_dir.chmod(0o755)
        (self.git_dir / "ciapp").chmod(0o755)
        self.spool.chmod(0o755)
        self.write("1").chmod(0o644)
        self.write("foreign", b"x").chmod(0o644)
        self.write("secret").chmod(0o600)
        nobody = pwd.getpwnam("nobody").pw_uid
        pid = os.fork()
        if pid == 0:
            os.setuid(nobody)
            records = [record.id for record in read_records(self.git_dir)]
            os._exit(0 if records == ["1"] else 1)
        self.assertEqual(0, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        self.assertTrue((self.spool / "foreign").exists())

    def test_readers_at_once_take_nothing_twice_into_rejected(self) -> None:
        for number in range(50):
            self.write(f"foreign-{number}", b"x")
        code = (
            "import sys; from pathlib import Path; from ciapp.intake.spool import read_records;"
            "sys.exit(len(read_records(Path(sys.argv[1]))))"
        )
        readers = [
            subprocess.Popen([sys.executable, "-c", code, str(self.git_dir)], stderr=subprocess.DEVNULL)
            for _ in range(3)
        ]

        self.assertEqual([0, 0, 0], [reader.wait(30) for reader in readers])
        self.assertEqual(50, len(list((self.spool / "rejected").iterdir())))
