"""Use up memory, in ways that no limit of a single process holds.

attack.py processes|files|shared MIB    then waits to be stopped.
"""
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
print("used", flush=True)
time.sleep(300)
