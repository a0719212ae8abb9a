import unittest

loader = unittest.defaultTestLoader
names_of = loader.getTestCaseNames
import_of = loader._get_module_from_name


def more_names_of(case):
    return [*names_of(case), "more"]


def checked_import_of(name):
    module = import_of(name)
    if not module.__doc__:
        raise ImportError(f"{name} does not say what it tests")
    return module


loader.getTestCaseNames = more_names_of
loader._get_module_from_name = checked_import_of


class TestApp(unittest.TestCase):
    def check_one(self):
        pass

    def more(self):
        self.fail("more")
