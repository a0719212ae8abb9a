"""Write to, delete and rename what the worker needs.

attack.py FILE...    prints a line for each file that could be changed.
"""
import os
import sys

for path in sys.argv[1:]:
    for attack in (
        lambda: open(path, "ab").write(b"written"),
        lambda: os.chmod(path, 0o777),
        lambda: os.rename(path, path + ".moved"),
        lambda: open(os.path.join(os.path.dirname(path), "added"), "wb").close(),
    ):
        try:
            attack()
        except OSError:
            continue
        print("changed", path)
        break
