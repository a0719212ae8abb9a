import unittest

import channel
import child
import result


class TestApp(unittest.TestCase):
    def test_its_own_modules_are_found(self):
        self.assertEqual(["channel", "child", "result"], [channel.NAME, child.NAME, result.NAME])
