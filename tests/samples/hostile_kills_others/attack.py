"""Kill the parent, the first process, and whatever bears a mark; then everything in reach.

attack.py MARK [all]    prints a line for each process killed.
"""
import os
import signal
import sys

mark = sys.argv[1].encode()
for name in os.listdir("/proc"):
    if name.isdigit() and int(name) != os.getpid():
        try:
            with open("/proc/%s/cmdline" % name, "rb") as file:
                if mark not in file.read() or int(name) == os.getppid():
                    continue
            os.kill(int(name), signal.SIGKILL)
            print("killed", name, flush=True)
        except OSError:
            continue
if sys.argv[2:] == ["all"]:
    for victim in (os.getppid(), 1, -os.getpgid(0), -1):
        try:
            os.kill(victim, signal.SIGKILL)
        except OSError:
            pass
