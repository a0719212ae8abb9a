"""Where the interpreter starts: `python CHILD/__main__.py ORDERS`; the package's docstring says the rest.

The child's modules live under a name that no project uses, and its folder leaves sys.path before unittest is
imported: so whatever a commit's tests import, a namesake of a standard module too, is what
`python -m unittest` would have found.
"""

import os
import sys


def _start() -> None:
    package = type(sys)("__ciapp_child__")
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules["__ciapp_child__"] = package
    program = __import__("__ciapp_child__.program", fromlist=["main"])
    program.main(int(sys.argv[1]))


# A process that multiprocessing spawns reads this file again, under another name.
if __name__ == "__main__":
    _start()
