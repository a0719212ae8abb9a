import doctest
import unittest


def good():
    """
    >>> 1 + 1
    2
    """


def bad():
    """
    >>> 1 + 1
    3
    """


def function_good():
    pass


def function_bad():
    raise AssertionError("not so")


def load_tests(loader, tests, pattern):
    tests.addTests(doctest.DocTestSuite())
    tests.addTest(unittest.FunctionTestCase(function_good, setUp=lambda: None))
    tests.addTest(unittest.FunctionTestCase(function_bad))
    return tests
