import unittest

run_as_ever = unittest.TextTestRunner.run


def run(self, test):
    result = run_as_ever(self, test)
    if result.testsRun != 3:
        self.stream.writeln("there are to be 3 tests")
        raise AssertionError(f"{result.testsRun} tests were run")
    return result


unittest.TextTestRunner.run = run


class TestApp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        print("class set-up")

    def test_interrupt(self):
        raise KeyboardInterrupt

    def test_two(self):
        pass
