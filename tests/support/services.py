"""What a test needs and a machine may lack."""

from __future__ import annotations

import os
import unittest
from typing import NoReturn

REQUIRED = "CIAPP_REQUIRE_SERVICES"


def need(service: str, reason: str) -> NoReturn:
    """Skip the test because a service is missing; fail it where services are required, as in `.ci/run`."""
    sentence = f"{service} is missing: {reason}"
    if os.environ.get(REQUIRED) == "1":
        raise AssertionError(sentence)
    raise unittest.SkipTest(sentence)
