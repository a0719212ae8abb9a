"""Whose fault it is that uv failed, and which of its words tell."""

from __future__ import annotations

import unittest

from ciapp.testing.failures import Blame, NeedsSource, find_blame, last_line
from ciapp.testing.program import Ended

INDEX = "https://index.example.org/simple"


def failed(output: str, status: int | None = 2, breach: str = "") -> Ended:
    return Ended(status=status, output=output, breach=breach)


class TestBlame(unittest.TestCase):
    def blamed(self, blame: Blame, *outputs: str, asked: tuple[str, ...] = (), status: int = 2) -> None:
        for output in outputs:
            with self.subTest(output):
                self.assertIs(blame, find_blame(failed(output, status), asked))

    def test_a_registry_that_does_not_answer_is_ours(self):
        self.blamed(
            Blame.REGISTRY,
            f"error: Failed to fetch: {INDEX}/six/\n  cause: error sending request for url ({INDEX}/six/)",
            f"cause: HTTP status server error (503 Service Unavailable) for url ({INDEX}/six/)",
            f"cause: HTTP status client error (429 Too Many Requests) for url ({INDEX}/six/)",
            f"hint: An index URL ({INDEX}) could not be queried due to a lack of valid authentication "
            "credentials (401 Unauthorized)",
            "hint: Packages were unavailable because the network was disabled.",
        )

    def test_a_server_that_the_commit_names_is_the_commits(self):
        self.blamed(
            Blame.COMMIT,
            "cause: error sending request for url (https://gone.example.com/a.whl)",
            asked=("a @ https://gone.example.com/a.whl",),
        )

    def test_what_cannot_be_resolved_is_the_commits(self):
        self.blamed(
            Blame.COMMIT,
            "cause: Because six was not found in the package registry and you require six, …",
            "error: Failed to parse: `six >`",
            status=1,
        )

    def test_a_full_disk_and_a_killed_uv_are_ours(self):
        self.blamed(Blame.HOST, "error: failed to write: No space left on device (os error 28)")
        self.blamed(Blame.HOST, "", status=-9)

    def test_what_takes_too_long_or_too_much_is_the_commits(self):
        self.assertIs(Blame.COMMIT, find_blame(failed("", None, "it took longer than 5 s"), ()))

    def test_what_has_no_wheel_is_named(self):
        said = failed(
            "error: No solution found\n  cause: Because docopt==0.6.2 has no usable wheels\n"
            "hint: Wheels are required for `docopt` because building from source is disabled\n"
            "hint: Wheels are required for `other` because building from source is disabled\n",
            1,
        )
        self.assertIs(Blame.SOURCE, find_blame(said, ()))
        self.assertEqual("there is no wheel of docopt, other", str(NeedsSource(said)))


class TestLastLine(unittest.TestCase):
    def test_the_most_telling_line_is_chosen(self):
        self.assertEqual("it took too long", last_line(failed("error: x", None, "it took too long")))
        self.assertEqual("why", last_line(failed("error: what\n  cause: why\n  cause: deeper\n\n")))
        self.assertEqual("a.c: Permission denied", last_line(failed("a.c: Permission denied\nexit 1\n")))
        self.assertEqual("exit 1", last_line(failed("trouble\nexit 1\n")))
        self.assertEqual("it ended with status 2", last_line(failed("")))
        self.assertEqual(201, len(last_line(failed("x" * 1000))))


if __name__ == "__main__":
    unittest.main()
