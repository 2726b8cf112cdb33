"""The folder that an export goes into: what lies there from before, and what exported.json says of it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurm_bench.errors import UserError
from slurm_bench.export.layout import LIST, Layout, name_problem
from slurm_bench.logs import log
from slurm_bench.run.durable import write_atomic

LOCK = ".exporting"


@dataclass(frozen=True)
class Folder:
    """`models` is what exported.json says of each model's export into `root`."""

    root: Path
    format: str
    models: Mapping[str, Mapping[str, Any]]

    def read(self, path: str) -> bytes:
        """A file's bytes, none where it isn't there. Raises UserError."""
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise UserError(f"{self.root / path}: {error.strerror}; give another --out") from None

    def refuse_foreign(self, coming: Iterable[str]) -> None:
        """Raises UserError where a file to come is there and isn't an export's, or where a link, or a file in a
        folder's place, would lead it elsewhere."""
        ours = {path for entry in self.models.values() for path in _paths(entry)}
        looked_at = {self.root}
        for path in coming:
            file = self.root / path
            if path not in ours and (file.exists() or file.is_symlink()):
                raise UserError(f"{file}: is there already, and isn't an export's; move it, or give another --out")
            for place in file.parents:
                if place in looked_at:
                    break
                if place.is_symlink() or (place.exists() and not place.is_dir()):
                    raise UserError(f"{place}: isn't a folder of an export; move it, or give another --out")
                looked_at.add(place)

    def note(self, model: str, entry: Mapping[str, Any]) -> Folder:
        """Say this of a model's export, in place of what was said of an earlier one."""
        noted = Folder(self.root, self.format, {**self.models, model: entry})
        text = json.dumps({"format": self.format, "models": noted.models}, indent=1)
        write_atomic(self.root / LIST, text.encode() + b"\n")
        return noted

    def remove_others(self, model: str, keep: set[str]) -> None:
        """Take away what the model's export has beside these files, and the folders that are empty then."""
        for path in set(_paths(self.models.get(model, {"samples": {}}))) - keep:
            folders = [folder for folder in (self.root / path).parents if self.root in folder.parents]
            if any(folder.is_symlink() for folder in folders):
                continue
            (self.root / path).unlink(missing_ok=True)
            with suppress(OSError):
                for folder in folders:
                    folder.rmdir()


def open_folder(out: Path, name: str, model: str, layout: Layout) -> Folder:
    """For a model's export in the format `name`; the folder need not be there yet. Raises UserError where it has files
    and isn't an export's, or has an export that this one would be mixed with."""
    root = out.absolute()
    try:
        if not (root / LIST).exists():
            if root.exists() and any(file.name != LOCK for file in root.iterdir()):
                raise UserError(f"{out}: has files that no export made; give --out a new or an empty folder")
            return Folder(root, name, {})
        said = json.loads((root / LIST).read_bytes())
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; give another --out") from None
    except ValueError as error:
        raise UserError(f"{root / LIST}: damaged: {error}; give another --out") from None
    if not _is_list(said):
        raise UserError(f"{root / LIST}: not the list of an export; give another --out")
    if said["format"] != name:
        raise UserError(f"{out}: holds an export in the format {said['format']}; give another --out")
    others = [other for other in said["models"] if other != model]
    if others and not layout.by_model:
        raise UserError(
            f"{out}: holds the export of {others[0]!r}, and {name} has no folder a model; give another --out, or "
            f"--model '{others[0]}' to replace it"
        )
    return Folder(root, name, said["models"])


@contextmanager
def alone_in(root: Path) -> Iterator[None]:
    """The lists are read and written whole again: of two exports at once they would lack one. Raises UserError where
    another is at work. The kernel drops the lock when the process dies, however it dies."""
    root.mkdir(parents=True, exist_ok=True)
    file = root / LOCK
    descriptor = _locked(file)
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()
        os.close(descriptor)


def _locked(file: Path) -> int:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                f"{file.parent}: another export writes there; type the same again when it has ended"
            ) from None
        except OSError as error:
            log.warning(
                "%s: no locks there (%s): let no other export write there meanwhile", file.parent, error.strerror
            )
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(file), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)  # the one before has just taken it away


def _is_list(said: Any) -> bool:
    """Files that it names are taken away when an export is made again, so each name is looked at."""
    try:
        paths = [path for entry in said["models"].values() for path in _paths(entry)]
        return isinstance(said["format"], str) and not any(name_problem(part) for p in paths for part in p.split("/"))
    except (AttributeError, TypeError, KeyError):
        return False


def _paths(entry: Mapping[str, Any]) -> list[str]:
    return [path for paths in entry["samples"].values() for path in paths]
