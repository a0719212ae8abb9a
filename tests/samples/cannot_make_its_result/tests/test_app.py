import unittest


class Result(unittest.TextTestResult):
    def __init__(self, stream, descriptions, verbosity, **options):
        raise OSError("there is nowhere to write results to")


unittest.TextTestRunner.resultclass = Result


class TestApp(unittest.TestCase):
    def test_one(self):
        pass
