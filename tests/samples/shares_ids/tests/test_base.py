import unittest


class TestBase(unittest.TestCase):
    runs = 0

    def test_second_run_fails(self):
        TestBase.runs += 1
        self.assertEqual(1, TestBase.runs)
