import unittest


def setUpModule():
    unittest.TestResult.addSuccess = lambda self, test: self.errors.append((test, "why"))


class TestApp(unittest.TestCase):
    def test_one(self):
        pass
