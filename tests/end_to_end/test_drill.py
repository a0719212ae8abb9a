"""The short drill: everything dies at random while 60 commits are pushed, and an oracle judges."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest

from tests.support.installation import CODE
from tests.support.services import need

COMMITS = 60
WITHIN_S = 600.0  #: on a machine that has much else to do; alone it takes about a minute


class TestShortDrill(unittest.TestCase):
    def drill(self, seed: int, *words: str) -> str:
        """What a drill prints that held."""
        command = [
            sys.executable,
            "-m",
            "tests.drill",
            "--commits",
            str(COMMITS),
            "--seed",
            str(seed),
            *words,
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CIAPP_")}
        drill = subprocess.Popen(
            command,
            cwd=CODE,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(drill.wait)
        self.addCleanup(drill.terminate)  # it ends what it has started
        printed, said = drill.communicate(timeout=WITHIN_S)
        if " is missing: " in said and drill.returncode:
            need("a service of the drill", said.strip().splitlines()[-1])
        self.assertEqual(0, drill.returncode, f"{printed}\n{said}")
        return printed

    def test_on_the_embedded_default_nothing_is_lost_and_nothing_doubled(self):
        self.assert_was_hard(self.drill(7))

    def test_on_rabbitmq_and_postgresql_nothing_is_lost_and_nothing_doubled(self):
        self.assert_was_hard(self.drill(11, "--broker", "rabbitmq", "--backend", "postgresql"))

    def assert_was_hard(self, printed: str) -> None:
        """A drill in which nothing struck would prove nothing."""
        rows = dict(line.rsplit(None, 1) for line in printed.splitlines() if not line.startswith(" "))
        self.assertGreaterEqual(int(rows["runs"]), COMMITS)
        self.assertGreaterEqual(int(rows["faults"]), 12)
        self.assertGreaterEqual(int(rows["lost attempts"]), 1)


if __name__ == "__main__":
    unittest.main()
