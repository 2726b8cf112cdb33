"""transformers and diffusers without what they import on the way and no edit or judgement asks for: seconds of a task's
start. Who asks for it later gets it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any, cast

# Packages that import each of their modules, whichever is wanted: every model that diffusers knows.
WHOLE = ("diffusers.models.autoencoders", "diffusers.models.transformers", "diffusers.models.unets")
# What transformers before 5.24 imports where it is installed: scikit-learn for one way of assisted decoding.
OPTIONAL = ("sklearn",)


_LOCK = RLock()


@contextmanager
def lean_imports() -> Iterator[None]:
    """Around the first import of transformers or diffusers, one thread at a time. Which distribution a package is of is
    found out once, not by each of the two."""
    with _LOCK:
        finder, modules = _Finder(), cast(dict[str, ModuleType | None], sys.modules)
        hidden = [name for name in OPTIONAL if name not in modules]
        which, distributions = "packages_distributions", metadata.packages_distributions
        sys.meta_path.insert(0, finder)
        modules |= dict.fromkeys(hidden)  # None there is a module that can't be imported
        setattr(metadata, which, cache(distributions))
        try:
            yield
        finally:
            sys.meta_path.remove(finder)
            setattr(metadata, which, distributions)
            for name in hidden:
                modules.pop(name, None)


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in WHOLE else None
        if spec is not None and spec.loader is not None:
            spec.loader = _WhenAsked(spec.loader)
        return spec


class _WhenAsked(Loader):
    """Runs a package's own code when it is asked for a name that it doesn't have yet, or for all. Its modules can be
    imported without. None of those in WHOLE asks its own package while it is imported, which could wait for ever."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._lock = RLock()
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        there = vars(module)

        def load() -> dict[str, Any]:
            with self._lock:
                if not self._begun:
                    self._begun = True
                    try:
                        self._loader.exec_module(module)
                    except BaseException:
                        self._begun = False  # who asks again is told why again
                        raise
            return there

        def find(name: str) -> Any:
            if (name.startswith("__") and name != "__all__") or name not in load():  # `import *` asks for __all__
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return there[name]

        there |= {"__getattr__": find, "__dir__": lambda: sorted(load())}
