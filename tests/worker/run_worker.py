"""A real worker, for which the fake trainer is the trainer.

In the environment: SWEEP_SECONDS, how often it looks without being rung for; HOST, to be on another machine than all who do not say the same.
"""

import os
import sys

from worker import __main__ as worker
from worker import process

if __name__ == "__main__":
    worker.SWEEP_SECONDS = float(os.environ.get("SWEEP_SECONDS", worker.SWEEP_SECONDS))
    if host := os.environ.get("HOST"):
        process.boot_id = lambda: host
    worker.main(trainer=(sys.executable, "-m", "tests.worker.fake_trainer"))
