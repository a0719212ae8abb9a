"""What a test needs and a machine may lack."""

from __future__ import annotations

import os
import unittest
from typing import NoReturn

REQUIRED = os.environ.get("REQUIRE_SERVICES") == "1"


def need(service: str, reason: str) -> NoReturn:
    """Skip the test because a service is missing; fail it where services are required, as in `.ci/run`."""
    sentence = f"{service} is missing: {reason}"
    if REQUIRED:
        raise AssertionError(sentence)
    raise unittest.SkipTest(sentence)
