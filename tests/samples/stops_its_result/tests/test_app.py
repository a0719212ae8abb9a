import unittest


class TestApp(unittest.TestCase):
    def run(self, result=None):
        self.result = result
        super().run(result)

    def test_1(self):
        self.result.stop()

    def test_2(self):
        self.fail()
