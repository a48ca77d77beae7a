"""A real worker, for which the fake trainer is the trainer."""

import sys

from worker.__main__ import main

if __name__ == "__main__":
    main(trainer=(sys.executable, "-m", "tests.worker.fake_trainer"))
