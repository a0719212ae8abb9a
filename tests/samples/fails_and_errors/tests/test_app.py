import unittest


class TestApp(unittest.TestCase):
    def test_body_fails_and_cleanup_errors(self):
        self.addCleanup(int, "no number")
        self.fail("the body")

    def test_body_fails(self):
        self.assertEqual(4, 5)

    def test_set_up_errors(self):
        raise LookupError("two\nlines")

    def test_goes_well(self):
        pass
