import unittest


class TestSkips(unittest.TestCase):
    @unittest.skip("by decorator")
    def test_decorator(self):
        self.fail()

    def test_body(self):
        self.skipTest("in its body")

    def test_inside_a_subtest(self):
        for number in range(2):
            with self.subTest(number=number):
                if number:
                    self.skipTest("in a subtest")


@unittest.skip("the class")
class TestSkippedClass(unittest.TestCase):
    def test_one(self):
        self.fail()

    def test_two(self):
        self.fail()


class TestSkippedInSetUp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise unittest.SkipTest("in setUpClass")

    def test_one(self):
        self.fail()

    def test_two(self):
        self.fail()
