import unittest


class TestApp(unittest.TestCase):
    @unittest.expectedFailure
    def test_subtest_fails(self):
        with self.subTest(number=1):
            self.fail()

    @unittest.expectedFailure
    def test_subtests_pass(self):
        with self.subTest(number=1):
            pass

    @unittest.expectedFailure
    def test_body_and_cleanup_fail(self):
        self.addCleanup(self.fail, "cleanup")
        self.fail("body")

    @unittest.expectedFailure
    def test_only_cleanup_fails(self):
        self.addCleanup(self.fail, "cleanup")
