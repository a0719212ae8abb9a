"""Commits that are made to harm: whoever comes after them, and whoever reads of them."""

from __future__ import annotations

import json
import re
import unittest
from functools import partial
from pathlib import Path

from ciapp.results.report import Status
from tests.support.installation import TEST_ANEW, Embedded, Installation, eventually
from tests.support.pages import answers, shown
from tests.support.servers import free_port

SAMPLES = Path(__file__).parent.parent / "samples"
HONEST = """\
import os
import unittest


class TestA(unittest.TestCase):
    def test_a(self):
        print(sorted(os.listdir()), sorted(os.listdir("/tmp")), sorted(os.environ))

    def test_b(self):
        self.assertEqual("x = 1\\n", open("app.py").read())

    def test_c(self):
        self.fail("as ever")
"""
HOSTILE = """\
import subprocess
import sys
import unittest


class TestA(unittest.TestCase):
    def test_a(self):
        subprocess.run([sys.executable, "attack.py", "/"], check=True)
"""
OWN = re.compile(r'"(attempt|queued_at|started_at|finished_at|duration_s)": ("[^"]*"|[\d.e-]+)')

SCRIPT = "<script>document.title='owned'</script>"
IMAGE = "<img src=x onerror=document.title='owned'>"
TERMINAL = (
    "\x1b]0;owned\x07\x1b[2J\x9b2J\u202e\r"  #: title, clear, clear in eight bits, backwards, over the line
)
ODD = f"""\
import unittest


class TestA(unittest.TestCase):
    def id(self):
        return {f"test_odd.{SCRIPT}.{TERMINAL}{IMAGE}"!r}

    def test_a(self):
        print({TERMINAL + SCRIPT!r})
        with self.subTest({TERMINAL + IMAGE!r}):
            self.fail({TERMINAL + SCRIPT!r})
"""
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  #: all but tab and new line


class TestAfterwards(Embedded, unittest.TestCase):
    def test_a_report_is_as_if_the_hostile_commit_had_never_been(self) -> None:
        ci = self.install(TEST_ANEW)
        clone = ci.make_repository()
        ci.start_all()
        files = {
            "tests/test_a.py": HONEST,
            "app.py": "x = 1\n",
            "package/data": "1",
            ".gitignore": "ignored\n",
        }
        commit = ci.push_commit(clone, files)
        first = self.report(ci, commit)
        attack = (SAMPLES / "hostile_leaves_everything" / "attack.py").read_text("utf-8")
        hostile = ci.push_commit(clone, {"tests/test_a.py": HOSTILE, "attack.py": attack})
        self.assertEqual(Status.PASSED, ci.report(hostile).status, ci.report(hostile).tests)

        ci.ciapp("rerun", "team", commit)
        eventually(lambda: ci.runs(commit)[0].attempt == 2, "the commit is tested again")

        again = self.report(ci, commit)
        self.assertEqual((1, 2), (json.loads(first)["attempt"], json.loads(again)["attempt"]))
        self.assertEqual(OWN.sub(r'"\1": 0', first), OWN.sub(r'"\1": 0', again))

    def report(self, ci: Installation, commit: str) -> str:
        """Every byte of what a program is told of the commit."""
        ci.ciapp("wait", "team", commit, code=1)
        return ci.ciapp("report", "team", commit, "--json", code=1)


class TestTexts(Embedded, unittest.TestCase):
    """Subjects, authors, names of refs, ids, messages and output, wherever they are shown."""

    def setUp(self) -> None:
        self.ci = self.install(TEST_ANEW)
        self.clone = self.ci.make_repository()
        self.port = free_port()
        self.ci.start("monitor", CIAPP_MONITOR_PORT=str(self.port))
        eventually(lambda: answers(f"http://127.0.0.1:{self.port}/tasks"), "Flower answers")
        self.ci.start_all()
        # git takes the characters that terminals obey out of names of refs, and "<" and ">" out of authors.
        self.ci.environment["GIT_AUTHOR_NAME"] = f"Ann{TERMINAL}&lt;b&gt;'\""
        self.commit = self.ci.commit(self.clone, {"tests/test_odd.py": ODD}, TERMINAL + SCRIPT + IMAGE)
        self.ci.push(self.clone, "origin", f"HEAD:refs/heads/{SCRIPT}\u202e")
        self.assertEqual(Status.FAILED, self.ci.report(self.commit).status)

    def test_no_terminal_obeys_what_a_commit_says(self) -> None:
        commands = (
            ("log", "team", self.commit),
            ("log", "team", self.commit, "--json"),
            ("report", "team", self.commit),
            ("report", "team", self.commit, "--json"),
            ("report", "team", self.commit, "--junit", "report.xml"),
            ("wait", "team", self.commit),
            ("history", "team", "test_odd"),
            ("history", "team", "test_odd", "--json"),
            ("reproduce", "team", self.commit),
            ("status",),
            ("status", "--json"),
            ("doctor",),
            ("cancel", "team", self.commit),
            ("rerun", "team", self.commit),
        )
        for words in commands:
            with self.subTest(" ".join(words)):
                said = self.ci.ciapp(*words, code=None)
                self.assertEqual([], OBEYED.findall(said), ascii(said))
                if words[0] in ("log", "report", "wait", "history", "reproduce") and "--junit" not in words:
                    self.assertIn("owned", said)
        for file in (*self.ci.folder.glob("*.log"), self.ci.folder / "report.xml"):
            self.assertEqual([], OBEYED.findall(file.read_text("utf-8")), file)

    def test_no_browser_runs_what_a_commit_says(self) -> None:
        self.assertIn("<title>owned", shown(self.ci, f"data:text/html,{SCRIPT}"), "the attack is none")
        # What Flower shows of a report is its beginning with the reason: little of it.
        unusable = self.ci.push_commit(self.clone, {".ciapp.toml": "'<b id=owned>' = 1\n"})
        self.assertIn("<b id=owned>", self.ci.report(unusable).reason)
        runs = [self.ci.runs(commit)[0] for commit in (self.commit, unusable)]
        pages = {f"task/{run.task_id}": "SUCCESS" for run in runs}
        pages |= {f"task/{runs[1].task_id}": "&lt;b id=owned&gt;", "tasks": "SUCCESS"}
        for page, told in pages.items():
            with self.subTest(page):
                dom = eventually(partial(self.page, page, told), f"{page} shows {told}", 20)
                self.assertNotIn("<title>owned", dom)
                self.assertNotIn(SCRIPT, dom)
                self.assertNotRegex(dom, "<(b id|img src=.?x)")

    def page(self, path: str, told: str) -> str:
        """A page of Flower's, once it tells something; else empty."""
        dom = shown(self.ci, f"http://127.0.0.1:{self.port}/{path}")
        return dom if told in dom else ""


if __name__ == "__main__":
    unittest.main()
