"""The bundled readers, an entry each, and which reader a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from slurm_bench.config import DataConfig, nearest
from slurm_bench.errors import UserError
from slurm_bench.importing import import_name

# A function of the `data` section that gives, in a fixed order, Items or dicts with an Item's names (`data/item.py`).
# It raises UserError where nothing can be read as things are; what is wrong with one item stands in its `problem`.
Reader = Callable[[DataConfig], Iterable[Any]]

_FILE = ("path", "fields", "image_root")
_TEXT = (*_FILE, "encoding")


class BundledReader(NamedTuple):
    """`takes` are the keys of `data` that it heeds: another that is set is a mistake and refused. `options` are the
    names in `data.options`; `suffixes` are of the files that it may be meant for."""

    function: str
    takes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()


BUNDLED = {
    "five_category": BundledReader(f"{__name__}.five_category.read_five_category", _TEXT, suffixes=(".json",)),
    "json": BundledReader(f"{__name__}.json_rows.read_json", _TEXT, suffixes=(".json",)),
    "jsonl": BundledReader(f"{__name__}.json_rows.read_jsonl", _TEXT, suffixes=(".jsonl", ".ndjson")),
    "csv": BundledReader(f"{__name__}.csv_rows.read_csv", (*_TEXT, "delimiter"), suffixes=(".csv", ".tsv", ".txt")),
    "parquet": BundledReader(f"{__name__}.parquet.read_parquet", _FILE, suffixes=(".parquet",)),
    "huggingface": BundledReader(f"{__name__}.huggingface.read_huggingface", _FILE, options=("split",)),
    "image_folder": BundledReader(f"{__name__}.image_folder.read_image_folder", ("path", "encoding")),
    "gedit": BundledReader(f"{__name__}.gedit.read_gedit", _FILE, options=("split", "language")),
    "gedit2": BundledReader(f"{__name__}.gedit2.read_gedit2", _FILE, options=("split",)),
    "imgedit": BundledReader(f"{__name__}.imgedit.read_imgedit", _TEXT),
    "risebench": BundledReader(f"{__name__}.risebench.read_risebench", _TEXT),
    "risebench2": BundledReader(f"{__name__}.risebench2.read_risebench2", _TEXT, options=("language", "turns")),
    "kris": BundledReader(f"{__name__}.kris.read_kris", ("path", "fields", "encoding")),
    "magicbrush": BundledReader(f"{__name__}.magicbrush.read_magicbrush", _FILE, options=("split", "turns")),
    "unireditbench": BundledReader(f"{__name__}.unireditbench.read_unireditbench", _TEXT),
    "wiseedit": BundledReader(f"{__name__}.wiseedit.read_wiseedit", _TEXT, options=("language",)),
    "demo": BundledReader("slurm_bench.data.demo.samples.read_demo"),
}


def find_reader(data: DataConfig) -> Reader:
    """The reader that `data` names. Raises UserError where there is none, or one that doesn't take what is set."""
    if data.reader in BUNDLED:
        bundled = BUNDLED[data.reader]
        _refuse_untaken(data, bundled)
        return import_name(bundled.function, "data.reader")
    if "." not in data.reader:
        raise UserError(
            f"'data.reader': no reader '{data.reader}'; {nearest(data.reader, BUNDLED)}; "
            "the dotted path of your own function is one too"
        )
    return import_name(data.reader, "data.reader")


def _refuse_untaken(data: DataConfig, reader: BundledReader) -> None:
    for key in ("path", "fields", "image_root", "encoding", "delimiter"):
        if getattr(data, key) and key not in reader.takes:
            raise UserError(f"'data.{key}' is set, but the reader '{data.reader}' takes none; {_advice(data)}")
    for name in data.options:
        if name not in reader.options:
            known = nearest(name, reader.options) if reader.options else "it takes no options"
            raise UserError(f"'data.options.{name}': no option of the reader '{data.reader}'; {known}")


def meant_for_another(data: DataConfig) -> str:
    """`; a .csv file is mostly for data.reader=csv`, where the file's name speaks against the reader; else nothing."""
    own = BUNDLED[data.reader].suffixes if data.reader in BUNDLED else ()
    suffix, fitting = _fitting(data)
    if not own or suffix in own or not fitting:
        return ""
    return f"; a {suffix} file is mostly for data.reader={' or data.reader='.join(fitting)}"


def _fitting(data: DataConfig) -> tuple[str, list[str]]:
    """The file's suffix, and the readers of such files."""
    suffix = Path(data.path or "").suffix.lower()
    return suffix, [name for name, reader in BUNDLED.items() if suffix and suffix in reader.suffixes]


def _advice(data: DataConfig) -> str:
    _, fitting = _fitting(data)
    if data.reader in fitting:
        return "leave it out"
    if fitting:
        return f"say data.reader={' or data.reader='.join(fitting)}"
    return f"say data.reader=NAME with one of {', '.join(name for name in BUNDLED if name != data.reader)}"
