import unittest


class TestSetUp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        print("before it breaks")
        raise OSError("class set-up")

    def test_one(self):
        pass


class TestTearDown(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        print("a set-up that goes well")

    @classmethod
    def tearDownClass(cls):
        raise OSError("class tear-down")

    def test_one(self):
        pass


class TestWithout(unittest.TestCase):
    def test_one(self):
        pass
