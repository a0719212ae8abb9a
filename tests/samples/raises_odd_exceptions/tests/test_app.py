import unittest


class Unprintable(Exception):
    def __str__(self):
        raise ValueError("not even this")


class Nameless(type):
    def __getattribute__(cls, name):
        if name == "__qualname__":
            raise ValueError("no name")
        return super().__getattribute__(name)


class WithoutName(Exception, metaclass=Nameless):
    pass


class TestApp(unittest.TestCase):
    def test_chain(self):
        error = None
        for number in range(300):
            try:
                raise ValueError(number) from error
            except ValueError as caught:
                error = caught
        raise error

    def test_huge_message(self):
        local = "x" * 50_000_000
        raise ValueError(local)

    def test_huge_local(self):
        local = ["x"] * 5_000_000
        self.assertFalse(local[0])

    def test_recursion(self):
        self.test_recursion()

    def test_without_a_name(self):
        raise WithoutName

    def test_unprintable(self):
        raise Unprintable
