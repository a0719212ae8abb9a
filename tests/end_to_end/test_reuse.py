"""A result that is reused, as users meet it: pushes, a worker, and the command line."""

from __future__ import annotations

import json
import unittest

from ciapp.results.report import Status
from tests.support.installation import PASSING, Embedded


class TestReuse(Embedded, unittest.TestCase):
    def test_an_amended_commit_has_the_result_of_the_first_until_it_is_asked_for_again(self):
        ci = self.install()
        clone = ci.make_repository()
        ci.start_all()
        first = ci.push_commit(clone, {"tests/test_a.py": PASSING})
        self.assertIsNone(ci.report(first).reused_from)
        amended = self.amend(ci, clone, "Better words")
        self.assertEqual(first, ci.report(amended).reused_from.commit)

        self.assertIn(f"[reused from {first[:12]}] Better words", ci.ciapp("wait", "team", amended))
        self.assertIn(f"[reused from {first[:12]}]", ci.ciapp("log", "team"))
        self.assertRegex(ci.ciapp("report", "team", amended), f"Reused: +the result of .* {first[:12]}")
        document = json.loads(ci.ciapp("report", "team", amended, "--json"))
        self.assertEqual(
            (first, True), (document["reused_from"]["commit"], document["reused_from"]["is_kept"])
        )

        ci.ciapp("rerun", "team", amended)
        ci.ciapp("wait", "team", amended)
        self.assertEqual((None, 2), (ci.report(amended).reused_from, ci.report(amended).attempt))
        fresh = self.amend(ci, clone, "The best words", "--push-option=ci.fresh")
        self.assertEqual((Status.PASSED, None), (ci.report(fresh).status, ci.report(fresh).reused_from))

    def amend(self, ci, clone, subject, *options):
        ci.git("commit", "--quiet", "--amend", "--message", subject, cwd=clone)
        ci.push(clone, "--force", *options, "origin", "HEAD:main")
        return ci.git("rev-parse", "HEAD", cwd=clone)


if __name__ == "__main__":
    unittest.main()
