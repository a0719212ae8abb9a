"""Fill the disk with files that are seen, that have no name, or that only seem to be large.

attack.py files|unlinked|sparse|FOLDER MIB    then waits to be stopped.
"""
import os
import sys
import time

way, mib = sys.argv[1], int(sys.argv[2])
page = b"x" * (1 << 20)
if way == "sparse":
    try:
        with open("sparse", "wb") as file:
            file.truncate(mib << 20)
        print("made", os.stat("sparse").st_size >> 20)
    except OSError as error:
        print(error.strerror)
    sys.exit()
if way.startswith("/"):
    os.mkdir("%s/%d" % (way, os.getuid()))
    os.chdir("%s/%d" % (way, os.getuid()))
for number in range(mib // 10):
    file = os.open(str(number), os.O_CREAT | os.O_RDWR)
    for _ in range(10):
        os.write(file, page)
    if way == "unlinked":
        os.unlink(str(number))
    else:
        os.close(file)
print("used", flush=True)
time.sleep(300)
