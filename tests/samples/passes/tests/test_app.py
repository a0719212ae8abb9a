import asyncio
import unittest


class TestApp(unittest.TestCase):
    def test_addition(self):
        self.assertEqual(4, 2 + 2)

    def test_that_says_something(self):
        print("on stdout")


class TestAsync(unittest.IsolatedAsyncioTestCase):
    async def test_sleep(self):
        await asyncio.sleep(0)


def load_tests(loader, tests, pattern):
    tests.addTest(unittest.FunctionTestCase(check_function))
    return tests


def check_function():
    pass
