"""Results that are slow to make and small to keep, in memory and bounded."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The results that were last asked for; none of them is None. One is made at a time: who asks for the same meanwhile waits for it."""

    def __init__(self, most: int) -> None:
        self._most, self._making, self._changing = most, Lock(), Lock()
        self._kept: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """What is kept under the key, or what `make` returns; nothing is kept when that raises."""
        found = self.find(key)
        if found is None:
            with self._making:
                found = self.find(key)
                if found is None:
                    found = self.keep(key, make())
        return found

    def find(self, key: Key) -> Value | None:
        """What is kept under the key, if anything."""
        with self._changing:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def keep(self, key: Key, value: Value) -> Value:
        """Keep what was made elsewhere, and forget what was not asked for the longest."""
        with self._changing:
            self._kept[key] = value
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return value
