import asyncio
import unittest


async def broken():
    raise OSError("async cleanup")


class TestApp(unittest.IsolatedAsyncioTestCase):
    async def asyncTearDown(self):
        if "tear_down" in self._testMethodName:
            raise OSError("async tear-down")

    async def test_cleanup(self):
        self.addAsyncCleanup(broken)

    async def test_pending_task(self):
        asyncio.ensure_future(asyncio.sleep(1000))

    async def test_tear_down(self):
        pass

    async def test_fails(self):
        await asyncio.sleep(0)
        self.fail()

    async def test_skipped(self):
        self.skipTest("not now")
