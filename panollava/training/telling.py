"""A piece of work that tells in events.jsonl that it began and how it ended, as whoever started it reads it. Torch-free."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from panollava import causes
from panollava.events import EVENTS_FILE, EventWriter, StageEvent
from panollava.training.stop import Stopped, StopRequest


@contextmanager
def told(directory: Path, name: str, stop: StopRequest) -> Iterator[EventWriter]:
    """The writer, for what else there is to tell. Whatever ends the work passes by, written down."""
    events = EventWriter(directory / EVENTS_FILE)
    try:
        events.write(StageEvent(name=name, status="started"))
        yield events
        events.write(StageEvent(name=name, status="succeeded"))
    except Stopped as stopped:
        events.write(StageEvent(name=name, status="stopped", reason=stop.reason, detail=str(stopped)))
        raise
    except BaseException as error:
        events.write(StageEvent(name=name, status="failed", reason=causes.word(error), detail=causes.said(error)))
        raise
    finally:
        events.close()
