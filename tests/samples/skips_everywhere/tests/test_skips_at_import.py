import unittest

raise unittest.SkipTest("at import")
