"""A host whose clock is wrong: with this directory on its PYTHONPATH, a Python, and each that it starts, is off by CLOCK_SHIFT seconds.

Files get the kernel's times, and the database has a clock of its own.
"""

import os
import time

_honest, _seconds = time.time, float(os.environ["CLOCK_SHIFT"])
time.time = lambda: _honest() + _seconds
