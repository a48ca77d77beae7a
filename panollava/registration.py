"""transformers' Auto classes know our model as soon as both packages are imported, in either order. Torch-free: see ADR 8.

`import panollava` must not import transformers, because server and worker start without it. So an importer waits in `sys.meta_path`, and
when a module with an Auto class has been imported by somebody, the module of ours that registers with it follows.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

AUTO = "transformers.models.auto."
FOLLOWS = {
    f"{AUTO}configuration_auto": "panollava.hf.config",
    f"{AUTO}modeling_auto": "panollava.hf.modeling",
    f"{AUTO}processing_auto": "panollava.hf.processing",
}


class _Followed(Loader):
    """Runs a module as its own loader would, then imports the one that follows it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        import_module(FOLLOWS[module.__name__])


class _Waiting(MetaPathFinder):
    """Finds the modules of FOLLOWS where Python would, and no other."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in FOLLOWS else None
        if spec and spec.loader:
            spec.loader = _Followed(spec.loader)
        return spec


def register() -> None:
    """Register with the Auto classes that are there, and with the others when they come."""
    if not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())
    for theirs, ours in FOLLOWS.items():
        if theirs in sys.modules:
            import_module(ours)
