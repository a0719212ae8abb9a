"""Change the mode of devices, to the mode that they have: it is the right to do so that counts.

attack.py DEVICE...    prints a line for each that let it.
"""
import os
import stat
import sys

for device in sys.argv[1:]:
    try:
        os.chmod(device, stat.S_IMODE(os.stat(device).st_mode))
    except OSError:
        continue
    print("changed", device)
