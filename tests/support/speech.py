"""What a child says, written by hand: event lines for tests of those who listen."""

from __future__ import annotations

import json
from collections.abc import Sequence

NONCE = "0123456789abcdef"


class Speech:
    """The lines of one child, numbered as a child numbers them."""

    def __init__(self, nonce: str = NONCE) -> None:
        self.lines: list[bytes] = []
        self._nonce = nonce

    def say(self, kind: str, **fields: object) -> Speech:
        event = {"type": kind, "n": len(self.lines), **fields}
        self.lines.append(f"{self._nonce} {json.dumps(event)}\n".encode())
        return self

    def hello(self) -> Speech:
        return self.say("hello", pid=1, python="3.11.7")

    def list_tests(self, ids: Sequence[str], unloaded: Sequence[str] = (), *, whole: bool = True) -> Speech:
        self.say("manifest", first=0, ids=list(ids))
        return self.say("listed", tests=len(ids), whole=whole, unloaded=list(unloaded), more=0)

    def run(self, index: int, outcome: str = "passed", **fields: object) -> Speech:
        self.say("start", test=index)
        return self.say("stop", test=index, outcome=outcome, duration=0.1, **fields)

    def end(self, *, good: bool = True) -> Speech:
        return self.say("end", threads=[], good=good)

    def said(self) -> bytes:
        return b"".join(self.lines)
