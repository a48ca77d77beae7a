"""A real worker, for which the fake trainer is the trainer. SWEEP_SECONDS in the environment: how often it looks without being rung for."""

import os
import sys

from worker import __main__ as worker

if __name__ == "__main__":
    worker.SWEEP_SECONDS = float(os.environ.get("SWEEP_SECONDS", worker.SWEEP_SECONDS))
    worker.main(trainer=(sys.executable, "-m", "tests.worker.fake_trainer"))
