"""Text from a commit, made safe to look at; and how wide it is, how long something took, its colour.

In:  anything a commit may hold: subjects, authors, ref names, test ids, output.
Out: text that only writes characters where they stand; a terminal takes no order from it.

What is escaped is a list of code points, not "whatever Python cannot print": that answer changes with each
release of Unicode, and a report must read the same under every Python. Backslashes stay as they are, so
plain text is unchanged and text that was escaped once is unchanged by a second time; the price is that a
literal \\x1b and an escaped one look alike.
"""

from __future__ import annotations

import re
import unicodedata
from enum import IntEnum

# The joiners U+200C and U+200D are left out: Persian, Hindi and many emoji cannot be written without them.
_UNSAFE = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, and C1: terminals obey these
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks: text seems to say something else
    r"\u00ad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\U000e0000-\U000e0fff"  # no width: text that hides
    r"\u2028\u2029\ufff9-\ufffb\ufffe\uffff"  # other line ends, annotations, code points that XML forbids
    r"\ud800-\udfff"  # surrogates: bytes that were not UTF-8, and cannot be written as UTF-8
)
_UNSAFE_IN_TEXT = re.compile(f"[{_UNSAFE}]")
_UNSAFE_IN_LINE = re.compile(rf"[\t\n{_UNSAFE}]")
_SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}


class Color(IntEnum):
    """Foreground colours, by their number in ECMA-48's "select graphic rendition"."""

    RED = 31
    GREEN = 32
    YELLOW = 33
    MAGENTA = 35
    CYAN = 36


def escape_text(text: str) -> str:
    """The text with unsafe characters written out, as \\x1b; its newlines and tabs stay."""
    return _UNSAFE_IN_TEXT.sub(_written_out, text)


def escape_line(text: str) -> str:
    """The text as one line: newlines and tabs are written out as well."""
    return _UNSAFE_IN_LINE.sub(_written_out, text)


def paint(text: str, color: Color) -> str:
    """The text, to be shown in a colour by a terminal."""
    return f"\x1b[{color.value}m{text}\x1b[0m"


def display_width(text: str) -> int:
    """Columns that escaped text takes: two for a wide character, none for a combining one."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def cut_to_width(text: str, width: int) -> str:
    """The text if it fits into so many columns, else its beginning and an ellipsis; at least one column."""
    if display_width(text) <= width:
        return text
    kept, room = [], max(width, 1) - 1
    for character in text:
        room -= _columns(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + "…"


def pad_to_width(text: str, width: int) -> str:
    """The text, filled up with blanks to so many columns; never cut."""
    return text + " " * (width - display_width(text))


def format_duration(seconds: float) -> str:
    """Short enough for a column: 0.012s, 4.1s, 2m05s, 3h07m."""
    if seconds < 0.9995:
        return f"{seconds:.3f}s"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}h{minutes % 60:02}m"


def _written_out(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _columns(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
