"""What a run is held to use: its own, and nothing of the host's."""

from __future__ import annotations

import gc
import subprocess
import unittest
from unittest.mock import patch

from ciapp.settings import Limits
from ciapp.testing.usage import Usage
from tests.support.git_repositories import new_folder
from tests.support.sandboxes import alone_with_memory, open_descriptors


class TestBeforeTheSandboxStands(unittest.TestCase):
    @alone_with_memory()
    def test_what_the_host_has_where_memory_will_be_mounted_is_not_the_runs(self) -> None:
        process = subprocess.Popen(["sleep", "60"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        # The root of a machine that runs this holds more than that.
        self.assertEqual("", Usage(Limits(memory_mib=64), []).breach(process.pid, ["/"]))


class TestWalk(unittest.TestCase):
    # Others may free more of the disk meanwhile than this takes of it.
    @patch.multiple("ciapp.testing.usage", WALK_EVERY_S=0.0, GROWTH_WORTH_A_WALK=-(1 << 60), SLICE_S=0.0)
    def test_a_walk_that_was_not_done_leaves_no_folder_open(self) -> None:
        folder = new_folder(self)
        for number in range(3):
            (folder / str(number) / "below").mkdir(parents=True)
        process = subprocess.Popen(["sleep", "60"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        before = open_descriptors()
        gc.disable()
        self.addCleanup(gc.enable)

        usage = Usage(Limits(), [folder])
        self.assertEqual("", usage.breach(process.pid))
        in_mid_walk = open_descriptors()
        usage.close()

        self.assertNotEqual(before, in_mid_walk)
        self.assertEqual(before, open_descriptors())


if __name__ == "__main__":
    unittest.main()
