"""Traces the first process of its namespace, unties that from whoever it would die with, and renames it.

Then waits for ever, beside a process that does the same. x86_64 alone.
"""

import ctypes
import os
import subprocess
import sys
import time

ATTACH, GETREGS, SETREGS, STEP, DETACH = 16, 12, 13, 9, 17
PRCTL, SET_PDEATHSIG = 157, 1
RAX, ORIG_RAX, RIP, RDI, RSI = 10, 15, 16, 14, 13

libc = ctypes.CDLL(None)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def untie(pid):
    if libc.ptrace(ATTACH, pid, None, None):
        return "held"
    os.waitpid(pid, 0)
    saved, changed = (ctypes.c_ulong * 27)(), (ctypes.c_ulong * 27)()
    for registers in (saved, changed):
        libc.ptrace(GETREGS, pid, None, ctypes.addressof(registers))
    # It was waiting in a system call: the instruction for one stands right before where it goes on.
    changed[RAX], changed[RDI], changed[RSI] = PRCTL, SET_PDEATHSIG, 0
    changed[ORIG_RAX], changed[RIP] = ctypes.c_ulong(-1).value, saved[RIP] - 2
    libc.ptrace(SETREGS, pid, None, ctypes.addressof(changed))
    libc.ptrace(STEP, pid, None, None)
    os.waitpid(pid, 0)
    libc.ptrace(GETREGS, pid, None, ctypes.addressof(changed))
    saved[RIP] -= 2
    saved[RAX] = saved[ORIG_RAX]
    libc.ptrace(SETREGS, pid, None, ctypes.addressof(saved))
    libc.ptrace(DETACH, pid, None, None)
    with open(f"/proc/{pid}/stat") as file:
        begin, end = map(int, file.read().rpartition(")")[2].split()[45:47])
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(begin)
        memory.write(b"x" * (end - begin))
    return "freed" if changed[RAX] == 0 else "held"


subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]])
print(untie(1), flush=True)
time.sleep(600)
