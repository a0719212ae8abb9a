"""A filter for system calls: what no namespace holds and no limit counts is taken out of a program's reach.

- The kernel's key store. A program inherits the session keyring of who starts it: what that may read of it
  (tickets, passwords that programs keep there), the program may read too, whatever its user; and what it
  leaves there, the next one finds.
- Memory of System V IPC: it belongs to no process, so that nobody sees whose it is. Segments and sets of
  semaphores are had up to a size (PostgreSQL takes 56 bytes and up to 20 semaphores), message queues not at
  all. The kernel allows 4,096 segments: 64 MiB.
- io_uring, which holds files that stand in no process's list.
- Secret memory (memfd_secret), which nobody is told the size of once it is not mapped any more.
- vmsplice: a byte of it in a pipe keeps the page that it stands in, which may be of 2 MiB.
- Landlock, whose rules are memory that a descriptor alone keeps, any number of them.
- Filters of calls with a listener, a descriptor that keeps them when nobody is held by them any more.
- Locks of an open file: any number of them lives on with a mapping of it, when no descriptor tells of them
  any more. Those of processes and flock are to be had.
- aio: there are 65,536 events for the whole host, which a database on it may need.
- fanotify, perf events, bpf and userfaultfd, of which programs have broken kernels and no suite has need.
- Sockets but those of unix, IP, netlink and packets (which take a capability). For others the kernel loads
  modules; and those to the machine that this one is a guest of, and to its other guests (vsock), no network
  namespace holds.
- User namespaces. In one of its own a program has every capability: it mounts file systems that nobody else
  sees, and calls parts of the kernel that only root is trusted with elsewhere.

Refused calls fail as on a kernel without them (ENOSYS, EAFNOSUPPORT), user namespaces as on a host that keeps
them to root (EPERM), too large ones as above the kernel's own limit (EINVAL), for this program and everything
that descends from it. What `clone3` is asked for stands in memory, where no filter looks: libraries that are
told that there is none take `clone`.
"""

from __future__ import annotations

import struct
from errno import EAFNOSUPPORT, EINVAL, ENOSYS, EPERM
from functools import cache

import msgspec

SEGMENT_BYTES = 16 * 1024
SEMAPHORES = 32  #: of a set
IO_URING_SETUP, CLONE3, LANDLOCK_CREATE_RULESET, MEMFD_SECRET = 425, 435, 444, 447  #: everywhere
CLONE_NEWUSER = 0x10000000
FILTER_WITH_LISTENER = 8
F_OFD_SETLK, F_OFD_SETLKW = 37, 38
FAMILIES = (1, 2, 10, 16, 17)  #: unix, inet, inet6, netlink, packet
IPC_SEMGET, IPC_MSGGET, IPC_SHMGET = 2, 13, 23  #: what `ipc` is asked for, by its first argument
#: The same of `socketcall`, whose other arguments no filter sees: programs use `socket` and `socketpair`.
CALL_SOCKET, CALL_SOCKETPAIR = 1, 8


class Calls(msgspec.Struct, frozen=True):
    """The numbers of an architecture's calls."""

    keys: int  #: the first of add_key, request_key and keyctl, which are neighbours
    semget: int
    msgget: int
    shmget: int
    socket: int
    clone: int
    unshare: int
    setns: int
    vmsplice: int
    socketpair: int
    seccomp: int
    fcntl: int  #: the one that takes large files, where there are two
    others: tuple[int, ...]  #: io_setup, bpf, perf_event_open, userfaultfd, fanotify_init
    ipc: int | None = None  #: one call for all of System V's
    socketcall: int | None = None  #: one call for all that is done with sockets
    low_first: bool = True  #: which half of an argument comes first
    clone_flags: int = 0  #: which argument of clone they are


#: Architecture as the kernel names it to filters → its calls: keys, semget, msgget, shmget, socket, clone,
#: unshare, setns, vmsplice, socketpair, seccomp, fcntl, and others.
# fmt: off
ARCHITECTURES = {
    # x86_64, and i386, which it runs as well
    0xC000003E: Calls(248, 64, 68, 29, 41, 56, 272, 308, 278, 53, 317, 72, (206, 321, 298, 323, 300)),
    0x40000003: Calls(286, 393, 399, 395, 359, 120, 310, 346, 316, 360, 354, 221, (245, 357, 336, 374, 338),
                      ipc=117, socketcall=102),
    # aarch64, arm, riscv64
    0xC00000B7: Calls(217, 190, 186, 194, 198, 220, 97, 268, 75, 199, 277, 25, (0, 280, 241, 282, 262)),
    0x40000028: Calls(309, 299, 303, 307, 281, 120, 337, 375, 343, 288, 383, 221, (243, 386, 364, 388, 367)),
    0xC00000F3: Calls(217, 190, 186, 194, 198, 220, 97, 268, 75, 199, 277, 25, (0, 280, 241, 282, 262)),
    # ppc64le, s390x
    0xC0000015: Calls(269, 393, 399, 395, 326, 120, 282, 350, 285, 333, 358, 55, (227, 361, 319, 364, 323),
                      ipc=117, socketcall=102),
    0x80000016: Calls(278, 393, 399, 395, 359, 120, 303, 339, 309, 360, 348, 55, (243, 351, 331, 355, 332),
                      ipc=117, socketcall=102, low_first=False, clone_flags=1),
}
# fmt: on
KEY_CALLS = 3
X32 = 0x40000000  #: set in the numbers of x86_64's other ABI, whose calls these are too

LOAD, AND, RETURN = 0x20, 0x54, 0x06  #: codes of instructions
JUMP, EQUAL, ABOVE, AT_LEAST, ANY_BIT = 0x05, 0x15, 0x25, 0x35, 0x45
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  #: where a call's facts stand
ALLOW, ERROR = 0x7FFF0000, 0x00050000


@cache
def refuse_calls() -> bytes:
    """The filter, in the kernel's form: (code, jump if true, jump if false, operand) per instruction."""
    program = [_do(LOAD, ARCHITECTURE)]
    for architecture, calls in ARCHITECTURES.items():
        block = _block(calls)
        program += [_do(EQUAL, architecture, no=len(block)), *block]
    return b"".join([*program, _do(RETURN, ALLOW)])


def _block(calls: Calls) -> list[bytes]:
    refuse = [_do(RETURN, ERROR | ENOSYS)]
    block = [_do(LOAD, NUMBER), _do(AND, 0xFFFFFFFF ^ X32)]
    block += [_do(AT_LEAST, calls.keys, no=2), _do(AT_LEAST, calls.keys + KEY_CALLS, yes=1), *refuse]
    nowhere = (IO_URING_SETUP, CLONE3, LANDLOCK_CREATE_RULESET, MEMFD_SECRET)
    block += _when_any((*nowhere, calls.msgget, calls.vmsplice, *calls.others), refuse)
    block += _when(calls.clone, _without(CLONE_NEWUSER, calls.clone_flags, calls, EPERM))
    block += _when(calls.unshare, _without(CLONE_NEWUSER, 0, calls, EPERM))
    block += _when(calls.seccomp, _without(FILTER_WITH_LISTENER, 1, calls, EINVAL))
    command = [_do(LOAD, _low_half(1, calls))]
    command += _when_any((F_OFD_SETLK, F_OFD_SETLKW), [_do(RETURN, ERROR | EINVAL)])
    block += _when(calls.fcntl, [*command, _do(RETURN, ALLOW)])
    block += _when(calls.setns, [_do(RETURN, ERROR | EPERM)])  # which asks for capabilities in any case
    block += _when(calls.semget, _up_to(SEMAPHORES, 1, calls))
    block += _when(calls.shmget, _up_to(SEGMENT_BYTES, 1, calls))
    usual = [_do(LOAD, _low_half(0, calls)), *_when_any(FAMILIES, [_do(RETURN, ALLOW)])]
    block += _when_any((calls.socket, calls.socketpair), [*usual, _do(RETURN, ERROR | EAFNOSUPPORT)])
    if calls.socketcall is not None:
        asked = [
            _do(LOAD, _low_half(0, calls)),
            *_when_any((CALL_SOCKET, CALL_SOCKETPAIR), refuse),
            _do(RETURN, ALLOW),
        ]
        block += _when(calls.socketcall, asked)
    if calls.ipc is not None:
        asked = [_do(LOAD, _low_half(0, calls)), _do(AND, 0xFFFF), *_when(IPC_MSGGET, refuse)]
        asked += _when(IPC_SEMGET, _up_to(SEMAPHORES, 2, calls))
        asked += _when(IPC_SHMGET, _up_to(SEGMENT_BYTES, 2, calls))
        block += _when(calls.ipc, [*asked, _do(RETURN, ALLOW)])
    return [*block, _do(RETURN, ALLOW)]


def _when(number: int, then: list[bytes]) -> list[bytes]:
    return [_do(EQUAL, number, no=len(then)), *then]


def _when_any(numbers: tuple[int, ...], then: list[bytes]) -> list[bytes]:
    last = len(numbers)
    steps = [_do(EQUAL, number, yes=last - at + 1) for at, number in enumerate(numbers, 1)]
    return [*steps, _do(JUMP, len(then)), *then]


def _up_to(most: int, argument: int, calls: Calls) -> list[bytes]:
    """Allow the call when an argument of it is no larger."""
    low = _low_half(argument, calls)
    high = low + 4 if calls.low_first else low - 4
    return [
        _do(LOAD, high),
        _do(EQUAL, 0, no=3),
        _do(LOAD, low),
        _do(ABOVE, most, yes=1),
        _do(RETURN, ALLOW),
        _do(RETURN, ERROR | EINVAL),
    ]


def _without(flag: int, argument: int, calls: Calls, error: int) -> list[bytes]:
    """Allow the call when an argument of it does not have a flag."""
    return [
        _do(LOAD, _low_half(argument, calls)),
        _do(ANY_BIT, flag, no=1),
        _do(RETURN, ERROR | error),
        _do(RETURN, ALLOW),
    ]


def _low_half(argument: int, calls: Calls) -> int:
    return ARGUMENTS + 8 * argument + (0 if calls.low_first else 4)


def _do(code: int, operand: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, operand)
