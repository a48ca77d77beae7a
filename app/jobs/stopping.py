"""How a stop escalates, for the worker that does it and for all that tells of it."""

from app.i18n import _

TERM_AFTER = 8.0
"""Seconds between the stop file and SIGTERM, for a trainer that is not at a step boundary."""
KILL_AFTER = 60.0
"""The save limit: seconds between SIGTERM and SIGKILL, time to write a large checkpoint."""

WORDS = _(
    "It saves a checkpoint at its next step and ends. A trainer that has not ended after {term} s is sent SIGTERM, and after {kill} s more it is "
    "killed; then the run goes on from the last checkpoint there is. The run says which of these it was, and what was saved."
).format(term=f"{TERM_AFTER:g}", kill=f"{KILL_AFTER:g}")
