import unittest


class TestApp(unittest.TestCase):
    def test_some_fail(self):
        for number in range(4):
            with self.subTest("a message", number=number):
                self.assertNotEqual(2, number)

    def test_one_errors(self):
        with self.subTest():
            self.fail("first")
        with self.subTest(text="two\nlines"):
            raise KeyError("second")

    def test_all_pass(self):
        for number in range(2):
            with self.subTest(number=number):
                pass

    def test_too_many_to_list(self):
        for number in range(1200):
            with self.subTest(number=number):
                self.assertNotEqual(1100, number)
