"""What a report says of how its tests were held, whatever became of them."""

from __future__ import annotations

import os
import unittest

from ciapp.results.report import Status
from tests.support.pipelines import Pipeline
from tests.support.sandboxes import WEAK

GREEN = "import unittest\nclass TestA(unittest.TestCase):\n    def test_a(self): pass\n"


@unittest.skipUnless(os.geteuid() == 0, "nobody but root is root")
class TestRoot(unittest.TestCase):
    def test_each_report_of_tests_that_are_root_says_so(self) -> None:
        ci = Pipeline(self, sandbox=WEAK)
        ci.settings.state_path.chmod(0o700)
        cases = (({"test_a.py": GREEN}, Status.PASSED), ({".ciapp.toml": "x"}, Status.SETUP_FAILED))
        for files, status in cases:
            with self.subTest(status):
                report = ci.push_commit(files)
                self.assertEqual(status, report.status, report.reason)
                self.assertIn("the tests were root on this host", "".join(report.warnings))


if __name__ == "__main__":
    unittest.main()
