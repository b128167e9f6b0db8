"""A worker module for the tests of child processes; its spec says what it does."""

from __future__ import annotations

import subprocess
import sys
import time

from tunix_rt_kit.errors import NotFound
from tunix_rt_kit.jobs.child import JobDir, run_worker


def work(job: JobDir) -> None:
    spec = job.spec
    job.check_cancelled()
    print("working on", spec["what"], flush=True)
    for number in range(spec.get("events", 0)):
        job.emit("step", number=number, text="é")
    if spec["what"] == "fail":
        raise NotFound("nothing there", reason="THING_NOT_FOUND", metadata={"thing": "x"})
    if spec["what"] == "bug":
        raise KeyError("secret")
    if spec["what"] == "family":
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        job.emit("grandchild", pid=grandchild.pid)
    if spec["what"] == "deaf":
        job.emit("waiting")
        time.sleep(60)
    if spec["what"] in ("wait", "family"):
        job.emit("waiting")
        while True:
            job.check_cancelled()
            time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(run_worker(work))
