import unittest


class TestApp(unittest.TestCase):
    pass


def check(self):
    with self.subTest(text="a\nb\0"):
        pass


for name in ("test_ spaces and (brackets)", "test_\u00fcml\u00e4ut \u20ac", "test_" + "long" * 100, "test_\ud800", "test_\0", "test_new\nline"):
    setattr(TestApp, name, check)
