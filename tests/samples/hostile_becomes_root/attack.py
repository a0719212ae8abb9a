"""Become root of a user namespace, by each call that makes one or enters one.

attack.py    prints a line for each call that did.
"""
import ctypes
import mmap
import os
import platform
import signal
import struct

NEWUSER = 0x10000000
CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine(), -1)
CLONE3 = 435
INT_80 = b"\x53\xb8\x36\x01\x00\x00\xbb\x00\x00\x00\x10\xcd\x80\x5b\xc3"  # unshare(NEWUSER) as i386 has it
libc = ctypes.CDLL(None, use_errno=True)
own = os.readlink("/proc/self/ns/user")


def is_root():
    with open("/proc/self/status") as status:
        is_mighty = any(line.startswith("CapEff") and int(line.split()[1], 16) for line in status)
    return is_mighty and os.readlink("/proc/self/ns/user") != own


def report(name):
    if is_root():
        print(name, "made root of a namespace", flush=True)


def unshare():
    libc.unshare(NEWUSER)
    report("unshare")


def clone():
    if libc.syscall(CLONE, ctypes.c_long(NEWUSER | signal.SIGCHLD), None, None, None, None) == 0:
        report("clone")
        os._exit(0)


def clone3():
    arguments = struct.pack("=8Q", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    if libc.syscall(CLONE3, arguments, ctypes.c_long(len(arguments))) == 0:
        report("clone3")
        os._exit(0)


def other_numbers():
    if platform.machine() == "x86_64":
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(INT_80)
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
        report("unshare as i386 has it")


def setns():
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        libc.unshare(NEWUSER)
        os.write(theirs, b"x")
        signal.pause()
    os.read(ours, 1)
    with open("/proc/%d/ns/user" % child) as namespace:
        libc.setns(namespace.fileno(), NEWUSER)
    report("setns")
    os.kill(child, signal.SIGKILL)


for attack in (unshare, clone, clone3, other_numbers, setns):
    attacker = os.fork()
    if attacker == 0:
        attack()
        try:
            while os.wait():
                pass
        finally:
            os._exit(0)
    os.waitpid(attacker, 0)
