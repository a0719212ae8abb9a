"""Look for a secret in the environment, the command lines and the environments of processes, and files.

attack.py TERCES FILE...    prints a line for each place that gives it away. The secret is given backwards, so that
it does not stand in the arguments.
"""
import os
import sys

secret, *files = sys.argv[1][::-1], *sys.argv[2:]
places = list(files)
for name in os.listdir("/proc"):
    if name.isdigit() and int(name) != os.getpid():
        places += ["/proc/%s/environ" % name, "/proc/%s/cmdline" % name]
for value in os.environ.values():
    if secret in value:
        print("found in my own environment")
for place in places:
    try:
        with open(place, "rb") as file:
            if secret.encode() in file.read():
                print("found in", place)
    except OSError:
        pass
