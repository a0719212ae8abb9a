"""`celery -A ciapp`, where it cannot work: one sentence and an exit code, as `ciapp worker`."""

from __future__ import annotations

import subprocess
import sys
import unittest

from sqlalchemy import text

from tests.support.installation import Installation
from tests.support.servers import free_port


class TestCeleryProgram(unittest.TestCase):
    def assert_ends(self, ci: Installation, code: int, sentence: str) -> None:
        """`celery -A ciapp worker` and `ciapp worker` end alike."""
        for command in (("celery", "-A", "ciapp", "worker"), ("ciapp.cli", "worker")):
            done = subprocess.run(
                [sys.executable, "-m", *command, "--concurrency=1"],
                env=ci.environment,
                cwd=ci.folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            self.assertEqual((code, ""), (done.returncode, done.stdout), done.stderr)
            self.assertRegex(done.stderr, sentence)

    def test_settings_that_cannot_be_used(self) -> None:
        ci = Installation(self, "lease = 3")
        sentence = rf"^ciapp: {ci.config}: unknown setting 'lease'; did you mean 'lease_s'\?\n$"
        self.assert_ends(ci, 2, sentence)
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "ciapp", "flower"],
            env=ci.environment,
            cwd=ci.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(2, done.returncode)
        self.assertRegex(done.stderr, sentence)

    def test_a_ledger_of_a_newer_ciapp(self) -> None:
        ci = Installation(self)
        ci.ciapp("status")
        with ci.database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        self.assert_ends(ci, 3, r"^ciapp: ledger \S+ .*9999.*newer ciapp.*\n$")

    def test_a_ledger_that_does_not_answer(self) -> None:
        port = free_port()
        ci = Installation(self, database=f"postgresql://ann:secret@127.0.0.1:{port}/ciapp")
        self.assert_ends(
            ci, 3, rf"^ciapp: ledger \S+:{port}/ciapp: connection failed: .*; run `ciapp doctor`\n$"
        )

    def test_a_program_of_ones_own_gets_the_exception(self) -> None:
        ci = Installation(self, "lease = 3")
        script = "try:\n    import ciapp.celery\nexcept Exception as error:\n    print(type(error).__name__)"
        done = subprocess.run(
            [sys.executable, "-c", script], env=ci.environment, capture_output=True, text=True, check=True
        )
        self.assertEqual("SettingsError\n", done.stdout)


if __name__ == "__main__":
    unittest.main()
