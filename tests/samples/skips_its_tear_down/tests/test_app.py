import unittest


class TestApp(unittest.TestCase):
    @classmethod
    def tearDownClass(cls):
        raise unittest.SkipTest("not today")

    def test_one(self):
        pass
