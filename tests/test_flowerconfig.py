"""Flower's configuration file follows the server's settings, wherever they stand."""

from __future__ import annotations

import os
import runpy
import unittest
from pathlib import Path
from unittest import mock

from tests.support.git_repositories import new_folder

FILE = Path(__file__).parent.parent / "config" / "flowerconfig.py"


class TestFlowerConfig(unittest.TestCase):
    def configuration(self, text: str, **variables: str) -> tuple[str, int]:
        """Address and port with this settings file and these variables."""
        file = new_folder(self) / "ciapp.toml"
        file.write_text(text)
        others = {name: value for name, value in os.environ.items() if not name.startswith("CIAPP_")}
        with mock.patch.dict(os.environ, {**others, "CIAPP_CONFIG": str(file), **variables}, clear=True):
            found = runpy.run_path(str(FILE))
        return found["address"], found["port"]

    def test_address_and_port_are_the_settings(self) -> None:
        text = 'monitor_port = 5633\nmonitor_address = "::1"'
        self.assertEqual(("127.0.0.1", 5555), self.configuration(""))
        self.assertEqual(("::1", 5633), self.configuration(text))
        self.assertEqual(("::1", 5634), self.configuration(text, CIAPP_MONITOR_PORT="5634"))


if __name__ == "__main__":
    unittest.main()
