"""What a run is held to use: its own, and nothing of the host's."""

from __future__ import annotations

import subprocess
import unittest

from ciapp.settings import Limits
from ciapp.testing.usage import Usage


class TestBeforeTheSandboxStands(unittest.TestCase):
    def test_what_the_host_has_where_memory_will_be_mounted_is_not_the_runs(self) -> None:
        process = subprocess.Popen(["sleep", "60"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        # The root of a machine that runs this holds more than that.
        self.assertEqual("", Usage(Limits(memory_mib=64), []).breach(process.pid, ["/"]))


if __name__ == "__main__":
    unittest.main()
