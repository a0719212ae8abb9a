"""A failing test that speaks for itself on the channel on which the child tells of it; FORGE says how."""

import gc
import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
import unittest

FORGE = os.environ.get("FORGE", "")
FROM_A_PROCESS = """
import os, sys
parent, line = sys.argv[1], sys.argv[2].encode()
for name in os.listdir(f"/proc/{parent}/fd"):
    if os.readlink(f"/proc/{parent}/fd/{name}").startswith("pipe:") and int(name) >= 200:
        try:
            os.write(os.open(f"/proc/{parent}/fd/{name}", os.O_WRONLY), line + b"\\n")
            print("wrote to", name)
        except PermissionError:
            print("may not open", name)
"""


def find_channel():
    """The child's own end of the channel, with all that it knows."""
    return next(one for one in gc.get_objects() if type(one).__name__ == "Channel" and hasattr(one, "_nonce"))


def say(kind, ahead=0, **fields):
    channel = find_channel()
    event = {"type": kind, "n": channel._lines + ahead, **fields}
    os.write(channel._events, f"{channel._nonce} {json.dumps(event)}\n".encode())


def passed(test=0):
    return {"test": test, "outcome": "passed", "duration": 0.1}


def find_nonces():
    """What looks like the channel's secret, wherever a process finds facts about itself.

    Not in pipes: what it has just said stands there until somebody reads it.
    """
    found = []
    for name in ("environ", "cmdline", "comm", "auxv", *(f"fd/{number}" for number in range(3, 1024))):
        try:
            if stat.S_ISFIFO(os.stat(f"/proc/self/{name}").st_mode):
                continue
            with open(os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                found += re.findall(rb"[0-9a-f]{16}", file.read(1 << 20) or b"")
        except OSError:
            continue
    return found


if FORGE == "a whole run when it is imported":
    say("manifest", first=0, ids=["tests.test_good.TestGood.test_it"])
    say("listed", 1, tests=1, whole=True, unloaded=[], more=0)
    say("start", 2, test=0)
    say("stop", 3, **passed())
    say("end", 4, threads=[], good=True)
    os._exit(0)
if FORGE == "an end when it is imported":
    say("end", threads=[], good=True)
    os._exit(0)
if FORGE == "a unittest without failures":
    unittest.TestCase.fail = lambda self, msg=None: None


class TestForged(unittest.TestCase):
    def test_1(self):
        if FORGE == "a second stop":
            say("stop", **passed())
        elif FORGE == "a stop in place of the true one":
            say("stop", **passed())
            find_channel()._lines += 1
        elif FORGE == "all that is left, at once":
            say("stop", **passed())
            say("start", 1, test=1)
            say("stop", 2, **passed(1))
            say("end", 3, threads=[], good=True)
        elif FORGE == "an end":
            say("end", threads=[], good=True)
            time.sleep(60)
        elif FORGE == "every line again and again":
            said = threading.Event()
            threading.Thread(target=self.repeat, args=(said,), daemon=True).start()
            said.wait(60)
        elif FORGE == "lines of another process":
            line = '0123456789abcdef {"type":"stop","n":3,"test":0,"outcome":"passed","duration":0.1}'
            print(subprocess.check_output(
                [sys.executable, "-c", FROM_A_PROCESS, str(os.getpid()), line], universal_newlines=True
            ))
        elif FORGE == "by a secret that it finds":
            print("found", find_nonces())
        elif FORGE == "a result without a verdict":
            for one in gc.get_objects():
                if type(one).__name__ == "Result":
                    one._leave = lambda *args, **named: None
        elif FORGE == "silence":
            find_channel()._pid = 0
        self.fail("it is broken")

    def test_2(self):
        self.fail("it is broken as well")

    def repeat(self, said):
        while True:
            for number in range(20):
                say("stop", -number, **passed())
                said.set()
                say("stop", -number, **passed(1))
            time.sleep(0.001)
