"""A real worker, for which the fake trainer is the trainer. In the environment may stand what a test wants otherwise:

SWEEP_SECONDS, how often it looks without being rung for; TAKEOVER_SECONDS and CONTACT_SECONDS, for how long a job must have been silent, and
the database there, before it takes the job over; HOST, to be on another machine than all who do not say the same.
"""

import os
import sys
from datetime import timedelta
from functools import partial

from worker import __main__ as worker
from worker import process, recover, work


def seconds(name: str, usual: float) -> float:
    return float(os.environ.get(name, usual))


if __name__ == "__main__":
    worker.SWEEP_SECONDS = seconds("SWEEP_SECONDS", worker.SWEEP_SECONDS)
    takeover = timedelta(seconds=seconds("TAKEOVER_SECONDS", recover.TAKEOVER.total_seconds()))
    contact = timedelta(seconds=seconds("CONTACT_SECONDS", recover.PATIENCE.total_seconds()))
    work.Recovery = partial(recover.Recovery, takeover=takeover, contact=contact)
    if host := os.environ.get("HOST"):
        process.boot_id = lambda: host
    worker.main(trainer=(sys.executable, "-m", "tests.worker.fake_trainer"))
