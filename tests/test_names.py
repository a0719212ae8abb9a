"""How a test is called where people read it."""

import unittest

from ciapp.outlets.names import class_and_method, unittest_name
from tests.support.reports import result


class TestNames(unittest.TestCase):
    def test_dots_divide_class_and_method_but_not_in_what_a_suite_adds(self):
        for test_id, names in {
            "tests.test_app.TestApp.test_x": ("tests.test_app.TestApp", "test_x"),
            "alone": ("", "alone"),
            "m.T.test_round (1.5, 'a.b')": ("m.T", "test_round (1.5, 'a.b')"),
            "m.T.test_round[a.b]": ("m.T", "test_round[a.b]"),
            "(m.T)": ("", "(m.T)"),
            ".hidden": ("", "hidden"),
            "": ("", ""),
        }.items():
            with self.subTest(test_id=test_id):
                self.assertEqual(names, class_and_method(result("passed", test_id)))

    def test_a_module_that_cannot_be_imported_is_a_failed_test_of_the_loader(self):
        broken = result("load-error", "tests.test_broken")

        self.assertEqual(("unittest.loader._FailedTest", "tests.test_broken"), class_and_method(broken))
        self.assertEqual(
            "tests.test_broken (unittest.loader._FailedTest.tests.test_broken)", unittest_name(broken)
        )

    def test_the_second_test_of_an_id_is_numbered(self):
        second = result("passed", "m.T.test_x", ordinal=1)

        self.assertEqual(("m.T", "test_x #2"), class_and_method(second))
        self.assertEqual("test_x (m.T.test_x) #2", unittest_name(second))

    def test_unittest_names_the_method_and_the_whole_id(self):
        for test_id, name in {
            "tests.test_app.TestApp.test_x": "test_x (tests.test_app.TestApp.test_x)",
            "alone": "alone (alone)",
            "m.T.test_round (1.5)": "test_round (1.5) (m.T.test_round (1.5))",
        }.items():
            with self.subTest(test_id=test_id):
                self.assertEqual(name, unittest_name(result("passed", test_id)))
