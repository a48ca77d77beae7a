"""The reasons in a run's history, in words."""

from collections.abc import Iterable
from typing import Any

from app.i18n import _
from app.jobs import causes
from app.models import Attempt, JobStatus, StageMark

SUCCEEDED = "_succeeded"
"""What a stage's name bears behind it as the reason why the next one was queued."""
REASONS = {
    "submitted": _("submitted"),
    "claimed": _("taken by a worker"),
    "imported": _("brought in from a terminal"),
    "adopted": _("another worker took over its trainer, which goes on"),
    "started": _("the trainer began"),
    "stop_requested": _("a stop was asked for"),
    "succeeded": _("trained to its end"),
    "worker_drained": _("its worker left and had it saved before"),
    "retry": _("to be tried again"),
    "trained_again": _("to be trained again, from its start"),
    "lighter": _("to be tried again with settings that need less memory"),
    "gate_opened": _("its gate was opened"),
    "moved_in_queue": _("moved in the queue"),
    "priority_changed": _("its priority was changed"),
}
RESUMED = {JobStatus.queued: _("to go on"), JobStatus.running: _("the trainer goes on from a checkpoint")}


def told(moves: Iterable[dict[str, Any]], attempts: Iterable[Attempt]) -> list[dict[str, Any]]:
    """Changes of status, each with its reason in words as `why`."""
    codes = {(each.job_id, each.number): each.exit_code for each in attempts}
    return [move | {"why": why(move["new"], move["reason"], codes.get((move["job_id"], move["attempt"])))} for move in moves]


def why(new: JobStatus | StageMark, reason: str, exit_code: int | None = None) -> str:
    """For a change of status, by an attempt that ended so; a reason nobody has put into words is shown as it is."""
    if reason == "resumed" and isinstance(new, JobStatus):
        return RESUMED.get(new, reason)
    if reason.endswith(SUCCEEDED):
        return _("{stage} succeeded").format(stage=reason.removesuffix(SUCCEEDED))
    return REASONS.get(reason) or causes.of_move(reason, exit_code)
