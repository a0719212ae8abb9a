"""A filter for system calls that takes the kernel's key store out of a program's reach.

A program inherits the session keyring of who starts it: what that may read of it (tickets, passwords that
programs keep there), the program may read too, whatever its user; and what it leaves there, the next one
finds. No namespace holds keyrings, so the calls themselves have to go. They fail as on a kernel without
them (ENOSYS), for this program and everything that descends from it.
"""

from __future__ import annotations

import struct
from errno import ENOSYS

#: Architecture as the kernel names it to filters → the first of the calls' numbers; the three are neighbours.
FIRST_CALLS = {
    0xC000003E: 248,  # x86_64: add_key, request_key, keyctl
    0x40000003: 286,  # i386, which x86_64 runs as well
    0xC00000B7: 217,  # aarch64
    0x40000028: 309,  # arm
    0xC00000F3: 217,  # riscv64
    0xC0000015: 269,  # ppc64le
    0x80000016: 278,  # s390x
}
CALLS = 3
X32 = 0x40000000  #: set in the numbers of x86_64's other ABI, whose calls these are too

LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06  #: codes of instructions
NUMBER, ARCHITECTURE = 0, 4  #: where a call's facts stand
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | ENOSYS


def refuse_keyrings() -> bytes:
    """The filter, in the kernel's form: (code, jump if true, jump if false, operand) per instruction."""
    program = _do(LOAD, ARCHITECTURE)
    for architecture, first in FIRST_CALLS.items():
        program += (
            _do(EQUAL, architecture, no=6)
            + _do(LOAD, NUMBER)
            + _do(AND, 0xFFFFFFFF ^ X32)
            + _do(AT_LEAST, first, no=1)
            + _do(AT_LEAST, first + CALLS, no=1)
            + _do(RETURN, ALLOW)
            + _do(RETURN, REFUSE)
        )
    return program + _do(RETURN, ALLOW)


def _do(code: int, operand: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, operand)
