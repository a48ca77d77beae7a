"""Files below the roots that a page may suggest. Bounded, so that a page need not wait for it: whatever is not found can still be named."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from app.settings import Settings

DEPTH = 4
PASSED_OVER = ("node_modules", "__pycache__", "site-packages")


def files(settings: Settings, most: int, is_wanted: Callable[[str], bool]) -> Iterator[Path]:
    """Files with a wanted name, breadth first, only so deep and among so many names.

    Links to directories, hidden ones and what runs wrote are passed over.
    """
    waiting = deque((root, 0) for root in dict.fromkeys(settings.roots))
    seen, entries = {Path(settings.artifacts), settings.scratch}, 0
    while waiting:
        directory, depth = waiting.popleft()
        if directory in seen:
            continue
        seen.add(directory)
        try:
            listing = os.scandir(directory)
        except OSError:
            continue  # one that may not be read, or is gone by now: there is nothing to suggest from it
        with listing:
            for entry in listing:
                entries += 1
                if entries > most:
                    return
                if entry.name.startswith(".") or entry.name in PASSED_OVER:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if depth + 1 < DEPTH:
                        waiting.append((Path(entry.path), depth + 1))
                elif is_wanted(entry.name) and entry.is_file():
                    yield Path(entry.path)
