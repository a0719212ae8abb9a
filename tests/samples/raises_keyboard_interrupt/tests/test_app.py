import unittest


class TestApp(unittest.TestCase):
    log = []

    @classmethod
    def setUpClass(cls):
        cls.log.append("set up")

    @classmethod
    def tearDownClass(cls):
        print(cls.log)

    def test_a_first(self):
        pass

    def test_b_interrupts(self):
        raise KeyboardInterrupt

    def test_c_goes_on(self):
        self.log.append("went on")

    def test_d_interrupts_in_a_subtest(self):
        with self.subTest(number=1):
            raise KeyboardInterrupt("in a subtest")


class TestNext(unittest.TestCase):
    def test_one(self):
        pass
