"""Output cut into scopes, and kept in part."""

from __future__ import annotations

import tracemalloc
import unittest

from hypothesis import given, settings
from hypothesis import strategies as st

from ciapp.testing import output
from ciapp.testing.output import OUTSIDE, HeadTail, Outputs, Splitter, readable

NONCE = "0123456789abcdef"


def marker(scope: str) -> bytes:
    return f"\x1e{NONCE} {scope}\x1e".encode()


class TestHeadTail(unittest.TestCase):
    def test_what_fits_is_kept_whole(self) -> None:
        kept = HeadTail(4)
        kept.add(b"abc")
        kept.add(b"defgh")

        self.assertEqual("abcdefgh", kept.text())

    def test_the_middle_is_left_out_and_counted(self) -> None:
        kept = HeadTail(2)
        for letter in b"abcdefgh":
            kept.add(bytes([letter]))

        self.assertEqual("ab\n[4 bytes left out]\ngh", kept.text())

    def test_no_letter_is_cut_in_half(self) -> None:
        kept = HeadTail(4)
        kept.add("ab€cdef€gh".encode())

        self.assertEqual("ab\n[10 bytes left out]\ngh", kept.text())

    @settings(derandomize=True, deadline=None)
    @given(st.lists(st.binary(max_size=50)), st.integers(1, 20))
    def test_head_tail_and_count_make_the_whole(self, chunks: list[bytes], half: int) -> None:
        kept = HeadTail(half)
        for chunk in chunks:
            kept.add(chunk)
        whole = b"".join(chunks)

        self.assertEqual(whole[:half], kept.head)
        self.assertEqual(min(len(whole), 2 * half), kept.kept)
        self.assertEqual(len(whole), kept.seen)
        if len(whole) <= 2 * half:
            self.assertEqual(readable(whole), kept.text())


class TestSplitter(unittest.TestCase):
    def split(self, *chunks: bytes, test_limit: int = 1000, run_limit: int = 10_000) -> Outputs:
        outputs = Outputs(test_limit=test_limit, run_limit=run_limit)
        splitter = Splitter(outputs, child=1, stream=1, nonce=NONCE)
        for chunk in chunks:
            splitter.feed(chunk)
        splitter.finish()
        return outputs

    def test_output_belongs_to_the_open_test(self) -> None:
        outputs = self.split(b"a" + marker("0") + b"b" + marker("-") + b"c" + marker("12") + b"d")

        self.assertEqual(["b", "d"], [outputs.text((1, scope), 1) for scope in ("0", "12")])
        self.assertEqual("ac", outputs.outside())

    def test_output_of_a_fixture_stays_with_it_only_when_it_fails(self) -> None:
        outputs = self.split(
            marker("f0")
            + b"good"
            + marker("-")
            + marker("f1")
            + b"bad"
            + marker("!")
            + marker("f2")
            + b"open"
        )

        self.assertEqual(["", "bad", "open"], [outputs.text((1, scope), 1) for scope in ("f0", "f1", "f2")])
        self.assertEqual("good", outputs.outside())

    def test_a_marker_of_another_nonce_is_output(self) -> None:
        forged = b"\x1effffffffffffffff 1\x1e"

        self.assertEqual(readable(forged), self.split(forged).outside())

    def test_the_beginning_of_a_marker_is_output_when_no_more_comes(self) -> None:
        self.assertEqual(readable(marker("0")[:9]), self.split(marker("0")[:9]).outside())

    def test_a_marker_without_an_end_is_output(self) -> None:
        endless = marker("0")[:-1] + b"x" * 100

        self.assertEqual(readable(endless), self.split(endless).outside())

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.data())
    def test_the_same_scopes_however_the_stream_is_cut(self, data: st.DataObject) -> None:
        pieces = data.draw(
            st.lists(
                st.sampled_from([marker("0"), marker("1"), marker("-"), marker("0")[:7], b"text", b"\x1e"])
            )
        )
        stream = b"".join(pieces)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
        chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        whole, cut = self.split(stream), self.split(*chunks)

        self.assertEqual(whole.outside(), cut.outside())
        for scope in "01":
            self.assertEqual(whole.text((1, scope), 1), cut.text((1, scope), 1))

    def test_a_run_keeps_its_first_and_its_latest_output(self) -> None:
        stream = b"".join(marker(str(test)) + b"x" * 100 + marker("-") for test in range(100))

        outputs = self.split(stream, run_limit=1000)

        kept = [test for test in range(100) if outputs.text((1, str(test)), 1) == "x" * 100]
        self.assertEqual([0, 1, 2, 3, 4, 95, 96, 97, 98, 99], kept)
        self.assertEqual("[100 bytes left out]", outputs.text((1, "50"), 1))
        self.assertEqual(9000, outputs.left_out())

    def test_a_flood_of_scopes_costs_no_memory(self) -> None:
        most = output.MOST_SCOPES
        self.addCleanup(setattr, output, "MOST_SCOPES", most)
        output.MOST_SCOPES = 100

        outputs = self.split(*(marker(str(test)) + b"xy" for test in range(1000)))

        self.assertEqual(["xy", ""], [outputs.text((1, scope), 1) for scope in ("99", "100")])
        self.assertEqual("xy" * 900, outputs.outside())

    def test_a_flood_costs_no_memory(self) -> None:
        outputs = Outputs(test_limit=64 * 1024, run_limit=1024 * 1024)
        splitter = Splitter(outputs, child=1, stream=1, nonce=NONCE)
        splitter.feed(marker("0"))
        chunk = b"x" * 250_000
        tracemalloc.start()
        for _ in range(4_000):
            splitter.feed(chunk)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        self.assertLess(peak, 2_000_000)
        self.assertEqual(4_000 * len(chunk) - 64 * 1024, outputs.left_out())
        self.assertEqual(0, len(outputs.text(OUTSIDE, 1)))
