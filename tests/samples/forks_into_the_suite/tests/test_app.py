import os
import unittest


class TestApp(unittest.TestCase):
    def test_a_forks(self):
        pid = os.fork()
        if pid == 0:
            self.fail("from the copy")
        os.waitpid(pid, 0)

    def test_b_rest(self):
        print("once")


class TestChildOfItsOwn(unittest.TestCase):
    def test_copy_ends_by_itself(self):
        pid = os.fork()
        if pid == 0:
            with self.subTest(number=1):
                pass
            os._exit(7)
        _, status = os.waitpid(pid, 0)
        self.assertEqual(7, status >> 8)
