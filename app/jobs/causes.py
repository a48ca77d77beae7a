"""Why a job has ended before its time, and what is known to help: the words that every page, the API and the command line tell.

Each reason is a machine word that a worker stored; `panollava.causes` tells which an error is.
"""

import signal

from app.i18n import _
from app.models import Job
from panollava import causes

WORDS = {
    "out_of_memory": _("It ran out of memory on its device"),
    "out_of_host_memory": _("The machine ran out of memory"),
    "disk_full": _("The disk is full"),
    "diverged": _("The training diverged: its loss is no number any more"),
    "missing_file": _("A file is missing"),
    "hub_away": _("A model is not here, and the hub does not answer"),
    "bad_config": _("A setting cannot be"),
    "bad_input": _("It refused its input"),
    "signal": _("The trainer was killed from outside"),
    "crashed": _("The trainer crashed"),
    "exit_code": _("The trainer ended with an error"),
    "no_outcome": _("It ended without saying how"),
    "no_result": _("It left no result behind"),
    "RankLost": _("One of its processes ended"),
    "CannotSave": _("A checkpoint could not be written"),
    "worker_lost": _("It was lost with its worker"),
    "abandoned": _("Its worker was gone for too long, so it saved and left"),
    "infrastructure": _("Its worker could not go on"),
    "not_stored": _("It was stopped while the store did not answer"),
    "killed": _("It was stopped, and killed because it did not end in time"),
    "stopped": _("It was stopped"),
    "stop_requested": _("It was stopped while it waited"),
    "lost_while_stopping": _("It was to stop, and was gone together with its worker, or killed, before it had said that it had saved"),
}
HINTS = {
    "out_of_memory": _(
        "Retry with the settings on the button, where there is one; else duplicate the run with twice the accumulation or a smaller batch_size. "
        "Precision bf16, fewer views and shorter texts need less too."
    ),
    "out_of_host_memory": _(
        "Retry with the settings on the button, where there is one; else duplicate the run with fewer num_workers or, on a CPU, a smaller "
        "batch_size. See what else is at work on that machine."
    ),
    "disk_full": _(
        "Make room, or let runs keep fewer checkpoints; then resume: the checkpoints before it are whole. Until then it would end so again."
    ),
    "diverged": _("Duplicate the run with a smaller lr, a longer warm-up or a smaller grad_clip; with fp16, try bf16 or fp32."),
    "missing_file": _("Put what the message names where it was, and resume; or duplicate the run with another path."),
    "hub_away": _(
        "Fetch it with `hf download` into the worker's cache, or clear HF_HUB_OFFLINE if the worker has it set and may use the network, and "
        "resume; or duplicate the run with a local directory as the model."
    ),
    "bad_config": _("Duplicate the run with another value for the setting that the message names."),
    "bad_input": _("Mend what the message names and resume; if it is a setting, duplicate the run with another value."),
    "signal": _(
        "See who ended it: a person, a batch system at its time limit, or the kernel where memory runs out; for that, use fewer num_workers or a "
        "smaller batch_size."
    ),
    "crashed": _(
        "Most often a defect in a library or a driver: the end of the log names where. If a resume ends so too, report it with those lines."
    ),
    "exit_code": _("The end of the log says what it met. It is not tried again by itself; resume when that is mended, or report it."),
    "no_result": _("The trainer said that it had succeeded, but its best checkpoint is missing or torn: look at the disk."),
    "RankLost": _("Look into the log for what it said; killed without a word, most often the machine ran out of memory: use fewer num_workers."),
    "CannotSave": _("The message says why. Mend it and resume: the checkpoints before it are whole."),
    "worker_lost": _("Look whether the worker's machine has enough memory and stays awake; its log says more. Resuming starts to count anew."),
    "abandoned": _("Look why no worker with its devices was started again on its machine. Resuming starts to count anew."),
    "infrastructure": _("This is not the run's own fault, but most often a defect of ours: the worker's log says more. Resume when it is mended."),
    "not_stored": _("The host that is named uploads the rest when the store answers again; a resume after that goes on from there."),
}


def cause(job: Job) -> str:
    """The machine word; of what older versions wrote down, and of imported trainings, that of today."""
    reason = job.reason or ""
    return reason if reason in WORDS and reason != "infrastructure" else causes.named(reason, job.detail or "")


def words(job: Job) -> str | None:
    """Without what it said. A reason that nobody has put into words is shown as it is; None where nothing has ended."""
    known = cause(job)
    return WORDS.get(known, known) or None


def hint(job: Job) -> str | None:
    """What to do; None where nothing is known to help."""
    return HINTS.get(cause(job))


def in_a_line(job: Job) -> str:
    """The words and the first line of what it said."""
    known, said = words(job) or "", (job.detail or "").partition("\n")[0]
    return f"{known}: {said}" if known and said else known or said


def of_move(reason: str, exit_code: int | None = None) -> str:
    """For a line of a history; a signal is named where the exit code of its attempt tells it."""
    if reason in ("signal", "crashed") and exit_code is not None and exit_code < 0:
        return _("the trainer was killed by {signal}").format(signal=signal_name(-exit_code))
    return WORDS.get(causes.named(reason), reason)


def signal_name(number: int) -> str:
    """Most real-time signals have none."""
    return signal.Signals(number).name if number in set(signal.Signals) else _("signal {number}").format(number=number)
