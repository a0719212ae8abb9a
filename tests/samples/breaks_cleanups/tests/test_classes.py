import unittest


def broken(where):
    raise OSError(where)


class TestAfterSetUp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(broken, "after a set-up that went well")

    def test_one(self):
        pass


class TestAfterFailedSetUp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(broken, "after a set-up that failed")
        raise OSError("class set-up")

    def test_one(self):
        pass


class TestFromTest(unittest.TestCase):
    def test_one(self):
        self.addClassCleanup(broken, "of a test")

    def test_two(self):
        self.doClassCleanups()
        self.addCleanup(broken, "after the test")
