"""An export that a worker has started: it tells how it ends, and can be stopped."""

from pathlib import Path

from panollava.training.stop import Stopped, StopRequest
from panollava.training.telling import told


def export_job(checkpoint: Path, directory: Path, evaluation: Path | None, job_dir: Path) -> Path:
    """`export`, with its events in `job_dir`. Raises Stopped, and then leaves nothing, and BadInput."""
    stop = StopRequest(job_dir)
    stop.listen()
    with told(job_dir, "export", stop):
        from panollava.hf.export import export  # takes seconds, in which a stop must be heard

        return export(checkpoint, directory, evaluation, between=lambda: _leave(stop))


def _leave(stop: StopRequest) -> None:
    if stop:
        raise Stopped("Nothing is left of the export.")
