"""Leave behind whatever a test can leave: in the checkout, in /tmp and HOME, in memory, as processes.

attack.py OUTSIDE    a folder to point links at.
"""
import os
import shutil
import socket
import subprocess
import sys

outside = sys.argv[1]
before = os.stat("app.py")
with open("app.py", "r+") as file:
    file.write("x = 9\n")
os.utime("app.py", ns=(before.st_atime_ns, before.st_mtime_ns))
shutil.rmtree("package")
os.symlink(outside, "package")
os.symlink("/", "root")
os.mkfifo("pipe")
socket.socket(socket.AF_UNIX).bind("socket")
os.makedirs("ignored/nested")
subprocess.run(["git", "init", "-q", "ignored/nested"], check=True)
subprocess.run(["git", "config", "core.fsmonitor", "touch ran"], check=True)
for name in (b"new\nline", b"\xff\xfe", b"-rf", b"\x1b[2J", b'"'):
    open(name, "wb").close()
    os.mkdir(b"folder" + name)
for folder in ("/tmp", "/dev/shm", os.path.expanduser("~"), "/var/tmp"):
    try:
        open(os.path.join(folder, "left"), "w").close()
    except OSError:
        pass
os.makedirs("closed/closed")
os.chmod("closed/closed", 0)
os.chmod("closed", 0)
os.chmod(".", 0)
for _ in range(3):
    subprocess.Popen(["setsid", "sleep", "300"])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            pass
