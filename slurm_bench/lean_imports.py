"""transformers and diffusers without what they import on the way and no edit or judgement asks for: seconds of a task's
start. Who asks for it later gets it."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module, metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from threading import RLock
from types import ModuleType
from typing import Any, cast

# Packages that import each of their modules, whichever is wanted: every model that diffusers knows.
WHOLE = ("diffusers.models.autoencoders", "diffusers.models.transformers", "diffusers.models.unets")
# Packages imported for a case that seldom comes, and what is taken out of them meanwhile: schedules of other models,
# losses of detectors.
SELDOM = {"scipy.integrate": (), "scipy.optimize": ("linear_sum_assignment",), "scipy.stats": ()}
# What transformers before 5.24 imports where it is installed: scikit-learn for one way of assisted decoding.
OPTIONAL = ("sklearn",)


_LOCK = RLock()


@contextmanager
def lean_imports() -> Iterator[None]:
    """Around the first import of transformers or diffusers, one thread at a time. Which distribution a package is of is
    found out once, not by each of the two."""
    with _LOCK, _known_gpu():
        finder, modules = _Finder(), cast(dict[str, ModuleType | None], sys.modules)
        # None there is a module that can't be imported.
        others = {name: None for name in OPTIONAL if name not in modules} | _stand_ins()
        which, distributions = "packages_distributions", metadata.packages_distributions
        sys.meta_path.insert(0, finder)
        modules |= others
        setattr(metadata, which, cache(packages_distributions))
        try:
            yield
        finally:
            sys.meta_path.remove(finder)
            setattr(metadata, which, distributions)
            for name, other in others.items():
                if modules.get(name) is other:
                    modules.pop(name, None)


@contextmanager
def _known_gpu() -> Iterator[None]:
    """Where torch is at work on a GPU already, it says by what it knows that there is one. Else it asks the driver, for
    fifty packages while that is busy with weights."""
    name, torch = "PYTORCH_NVML_BASED_CUDA_CHECK", sys.modules.get("torch")
    before = os.environ.get(name)
    if torch is None or not torch.cuda.is_initialized():
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def packages_distributions() -> Mapping[str, list[str]]:
    """importlib.metadata's, by the names alone that each distribution's list of files begins with: that one looks
    whether each file is there, for seconds, and parses the descriptions."""
    found: dict[str, list[str]] = defaultdict(list)
    for distribution in metadata.distributions():
        header = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        if name := re.search(r"^Name: *(.+?) *$", header, re.MULTILINE):
            for package in _packages(distribution):
                found[package].append(name[1])
    return dict(found)


def _packages(distribution: metadata.Distribution) -> Sequence[str]:
    if declared := (distribution.read_text("top_level.txt") or "").split():
        return declared
    record = distribution.read_text("RECORD")
    paths = re.findall(r"^[^,]+", record, re.MULTILINE) if record else map(str, distribution.files or ())
    names = {folder if rest else inspect.getmodulename(folder) for folder, _, rest in (p.partition("/") for p in paths)}
    return [name for name in names if name and "." not in name]


def _stand_ins() -> dict[str, ModuleType | None]:
    """Of those of SELDOM that are installed and not there yet."""
    made: dict[str, ModuleType | None] = {}
    for name, taken in SELDOM.items():
        package, _, short = name.rpartition(".")
        if name not in sys.modules and find_spec(package) is not None and (spec := find_spec(name)) is not None:
            made[name] = _StandIn(spec, taken)
            setattr(sys.modules[package], short, made[name])  # where `import a.b` looks for b
    return made


class _StandIn(ModuleType):
    """In place of a package while it is only imported. `taken`, functions of it, can be had without it; who asks for
    another name, or calls one of those, gets the package's own."""

    def __init__(self, spec: ModuleSpec, taken: Sequence[str]) -> None:
        super().__init__(spec.name)
        self.__spec__ = spec
        self.__path__ = _Path(spec.submodule_search_locations or (), self._own)
        self._taken = taken

    def _own(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return import_module(self.__name__)

    def __getattr__(self, name: str) -> Any:
        if name in self._taken:
            return lambda *args, **kwargs: getattr(self._own(), name)(*args, **kwargs)
        if name.startswith("__") and name != "__all__":  # such names are asked of every module
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self._own(), name)


class _Path(list[str]):
    """Where a package's modules are, for who can't be without the package."""

    def __init__(self, folders: Sequence[str], load: Callable[[], object]) -> None:
        super().__init__(folders)
        self._load = load

    def __iter__(self) -> Iterator[str]:
        self._load()
        return super().__iter__()


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
