"""The ciapp before this one, as it left its ledger: from the history of this project."""

from __future__ import annotations

import io
import subprocess
import tarfile
import unittest
from pathlib import Path

from tests.support.archives import unpack
from tests.support.git_repositories import new_folder
from tests.support.installation import CODE

SCHEMA = "ciapp/results/schema.py"


def older_code(test: unittest.TestCase) -> Path:
    """This project as it was before the last migration came; skips where its history is not at hand."""
    find = ["git", "-C", str(CODE), "log", "-1", "--format=%H^", "-G", "^HEAD_REVISION", "--", SCHEMA]
    commit = subprocess.run(find, capture_output=True, text=True, check=False).stdout.strip()
    archive = ["git", "-C", str(CODE), "archive", commit, "ciapp", "hooks"]
    packed = subprocess.run(archive, capture_output=True, check=False)
    if packed.returncode:
        raise unittest.SkipTest("the history of this project is not here, which has its older versions")
    folder = new_folder(test)
    folder.chmod(0o755)  # tests run under another identity than ours
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tar:
        unpack(tar, folder)
    return folder
