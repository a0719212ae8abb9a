"""Make very many files.

attack.py COUNT
"""
import os
import sys

for number in range(int(sys.argv[1])):
    folder = "many/%d" % (number // 1000)
    if number % 1000 == 0:
        os.makedirs(folder)
    os.close(os.open("%s/%d" % (folder, number), os.O_CREAT | os.O_WRONLY))
