from test_base import TestBase
