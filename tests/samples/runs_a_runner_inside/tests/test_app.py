import sys
import unittest


class Inner(unittest.TestCase):
    def check_failure(self):
        self.fail("inside")


class TestApp(unittest.TestCase):
    def test_suite_inside(self):
        result = unittest.TextTestRunner(stream=sys.stdout).run(unittest.TestSuite([Inner("check_failure")]))
        self.assertFalse(result.wasSuccessful())

    def test_main_inside(self):
        unittest.main(module=None, argv=["inner", "no_such_test_module"], exit=True)

    def test_rest(self):
        pass
