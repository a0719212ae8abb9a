import unittest


def broken():
    raise OSError("of the module")


def setUpModule():
    unittest.addModuleCleanup(broken)


def tearDownModule():
    """Without it, CPython 3.8 forgets the module's clean-ups."""


class TestApp(unittest.TestCase):
    def test_one(self):
        pass
