"""Flower, looked at with a browser while commits are tested."""

from __future__ import annotations

import subprocess
import sys
import unittest

from ciapp.results.report import Status
from ciapp.results.workers import list_workers
from tests.support.installation import CODE, PASSING, Embedded, eventually
from tests.support.pages import answers, read, shown
from tests.support.servers import free_port

HOSTILE = "<script>document.title='owned'</script>"


class TestMonitor(Embedded, unittest.TestCase):
    def run_one_and_look(self, *command: str, port: int) -> None:
        ci = self.install()
        clone = ci.make_repository()
        ci.start_all()
        with (ci.folder / "monitor.log").open("ab") as log:
            ci.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", *command],
                    env=ci.environment | {"CIAPP_MONITOR_PORT": str(port)},
                    cwd=CODE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        base = f"http://127.0.0.1:{port}"
        eventually(lambda: answers(f"{base}/tasks"), "Flower answers")
        commit = ci.push_commit(clone, {"tests/test_a.py": PASSING}, HOSTILE)
        self.assertEqual(Status.PASSED, ci.report(commit).status)
        [run] = ci.runs(commit)

        page = eventually(
            lambda: (dom := shown(ci, f"{base}/tasks")) and "SUCCESS" in dom and dom,
            "Flower shows the task's success",
        )
        self.assertIn(f"team:{commit[:12]}:{run.id}:1", page)
        self.assertIn("ciapp.run_commit", page)
        self.assertNotIn(HOSTILE, page)
        detail = shown(ci, f"{base}/task/{run.task_id}")
        self.assertIn("passed", detail)
        self.assertNotIn("<title>owned", detail)
        self.assertIn("celery@", shown(ci, f"{base}/workers"))
        # Whoever looks can stop nothing.
        [worker] = list_workers(ci.database)
        self.assertNotIn("Shut Down", read(f"{base}/worker/{worker.name}"))

    def test_the_monitor_command_shows_each_run_as_a_task(self):
        port = free_port()
        self.run_one_and_look("ciapp.cli", "monitor", port=port)

    def test_flower_with_our_configuration_file_shows_the_same(self):
        port = free_port()
        conf = "--conf=config/flowerconfig.py"
        self.run_one_and_look("celery", "-A", "ciapp", "flower", conf, port=port)


if __name__ == "__main__":
    unittest.main()
