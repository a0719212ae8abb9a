import asyncio
import logging
import os
import sys
import unittest

# What is left is complained of under Python 3.8, whenever it is collected.
logging.getLogger("asyncio").disabled = True


class TestApp(unittest.IsolatedAsyncioTestCase):
    """Each test is over when its loop, which is closed after it, meets the task that it has left."""

    async def leave(self, action):
        async def stubborn():
            while True:
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    action()

        asyncio.ensure_future(stubborn())
        await asyncio.sleep(0)

    async def test_crash(self):
        await self.leave(os.abort)

    async def test_exit(self):
        await self.leave(lambda: sys.exit(0))

    async def test_hang(self):
        await self.leave(lambda: None)

    async def test_plain(self):
        pass


class TestRest(unittest.TestCase):
    def test_fails(self):
        self.fail()
