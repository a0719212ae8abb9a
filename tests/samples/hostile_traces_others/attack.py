"""Take hold of another process with ptrace.

attack.py PID...    prints a line for each process that could be held.
"""
import ctypes
import os
import sys

ATTACH, DETACH = 16, 17
libc = ctypes.CDLL(None, use_errno=True)
for pid in map(int, sys.argv[1:]):
    if libc.ptrace(ATTACH, pid, None, None) == 0:
        os.waitpid(pid, 0)
        libc.ptrace(DETACH, pid, None, None)
        print("held", pid)
