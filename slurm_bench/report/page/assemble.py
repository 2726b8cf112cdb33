"""A page and the folder `page` beside it, opened from disk, or all in one file. A browser that shows a file loads the
scripts and pictures beside it, but neither modules nor data: so the data are a script as well."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from slurm_bench.errors import UserError
from slurm_bench.report.number import chance, interval, number
from slurm_bench.report.page.pictures import Picture, Show
from slurm_bench.report.page.thumbnails import make_thumbnails
from slurm_bench.run.durable import write_atomic, writing

ASSETS = Path(__file__).parent / "assets"
STYLES = ("page.css",)
SCRIPTS = ("vendor/image-compare.js", "gallery.js", "viewer.js")
LICENCES = ("vendor/image-compare.LICENSE",)

MOST_PICTURED = 2000  # samples with thumbnails: what a page of a large run costs to make and to keep
MOST_LISTED = 100_000  # samples in the gallery: a browser reads 50 MB for them
MOST_BYTES = 25_000_000  # of a single file, which mail still takes


@dataclass(frozen=True)
class Page:
    """What one page is made of. `pictures` gives those of so many samples, the first in an order that `order` names;
    `gallery` the data of the samples, those one by one, once it is told how a picture is shown, of how many all texts
    are wanted, and how many are listed."""

    template: str
    folder: Path
    name: str
    total: int
    order: str
    pictures: Callable[[int], Sequence[Sequence[Picture]]]
    link: Callable[[Picture], str]
    gallery: Callable[[Show, int, int], Mapping[str, Any]]
    facts: Mapping[str, Any]

    @property
    def listed(self) -> int:
        """Samples in the gallery, where it may have any size."""
        return min(self.total, MOST_LISTED)

    @property
    def beside(self) -> Path:
        return self.folder / "page"


def write_pages(page: Page, single_file: bool) -> dict[str, Path]:
    """The page's file, and that of all in one where it is wanted, by what people are told of them. Raises UserError."""
    try:
        return {"page": write_page(page)} | ({"to send": write_single_file(page)} if single_file else {})
    except OSError as error:
        raise UserError(f"--html {page.folder}: {error.strerror or error}") from None


def write_page(page: Page) -> Path:
    """Gives the page's file. Thumbnails that are there already are kept."""
    thumbnails = _thumbnails(page)

    def show(picture: Picture) -> Mapping[str, str]:
        name, problem = thumbnails.get(picture, ("", ""))
        thumb = f"page/thumbnails/{name}" if name else ""
        return {"role": picture.role, "thumb": thumb, "full": page.link(picture), "problem": problem}

    for asset in (*STYLES, *SCRIPTS, *LICENCES):
        write_atomic(page.beside / Path(asset).name, (ASSETS / asset).read_bytes())
    with writing(page.beside / "data.js") as script:
        script.writelines(part.encode() for part in _data(page, show, MOST_PICTURED, page.listed))
        script.write(b"\n")
    pictured = min(page.total, MOST_PICTURED)
    file = page.folder / f"{page.name}.html"
    write_atomic(file, _render(page, pictured, pictured, page.listed).encode("utf-8", "replace"))
    return file


def write_single_file(page: Page) -> Path:
    """The page with all that it needs within, to be sent: of at most MOST_BYTES, with thumbnails of as many samples as
    the texts leave room for, the worst first, and no full images. Gives its file."""
    thumbnails = _thumbnails(page)
    licences = "".join(f"/*\n{(ASSETS / licence).read_text(encoding='utf-8')}*/\n" for licence in LICENCES)
    scripts = [
        licences + (ASSETS / SCRIPTS[0]).read_text(encoding="utf-8"),
        *((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS[1:]),
    ]
    styles = [(ASSETS / style).read_text(encoding="utf-8") for style in STYLES]

    def file_of(data: str, pictured: int, whole: int, listed: int) -> bytes:
        inline = {"inline_styles": styles, "inline_scripts": [data, *scripts]}
        return _render(page, pictured, whole, listed, single_file=True, **inline).encode("utf-8", "replace")

    def show(picture: Picture, among: Collection[str] | None = None) -> Mapping[str, str]:
        name, problem = thumbnails.get(picture, ("", ""))
        return {
            "role": picture.role,
            "thumb": name if among is None or name in among else "",
            "full": "",
            "problem": problem,
        }

    room = MOST_BYTES - len(file_of("", page.total - 1, page.total - 1, page.total - 1))
    whole, listed = _that_fit(page, show, room)
    room -= len(_with_thumbnails("".join(_data(page, show, whole, listed)), {}))
    within: dict[str, str] = {}
    pictured = 0
    for pictures in page.pictures(min(MOST_PICTURED, listed)):
        names = {thumbnails[picture][0] for picture in pictures} - {"", *within}
        new = {name: _as_uri((page.beside / "thumbnails" / name).read_bytes()) for name in names}
        room -= sum(len(name) + len(uri) + len('"":"",') for name, uri in new.items())
        if room < 0:
            break
        pictured += 1
        within |= new
    data = _with_thumbnails("".join(_data(page, partial(show, among=within), whole, listed)), within)
    file = page.folder / f"{page.name}-single.html"
    write_atomic(file, file_of(data, pictured, whole, listed))
    return file


def _that_fit(page: Page, show: Show, room: int) -> tuple[int, int]:
    """For how many samples half of the room holds all texts, and how many it holds at all. The other half is for
    pictures."""
    listed = page.listed
    while listed and sum(map(len, _data(page, show, 0, listed))) > room / 4:
        listed //= 2
    whole = min(MOST_PICTURED, listed)
    while whole and sum(map(len, _data(page, show, whole, listed))) > room / 2:
        whole //= 2
    return whole, listed


def _as_uri(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"


def _with_thumbnails(data: str, thumbnails: Mapping[str, str]) -> str:
    """Each stands there once, however many samples show it."""
    return (
        f"{data}\nconst THUMBNAILS = {_script_json(thumbnails)};\n"
        "for (const sample of REPORT.samples)\n"
        '  for (const picture of sample.pictures) picture.thumb = THUMBNAILS[picture.thumb] ?? "";'
    )


def _thumbnails(page: Page) -> Mapping[Picture, tuple[str, str]]:
    pictures = [picture for sample in page.pictures(MOST_PICTURED) for picture in sample]
    return make_thumbnails(pictures, page.beside / "thumbnails")


def _render(
    page: Page, pictured: int, whole: int, listed: int, single_file: bool = False, **inline: Sequence[str]
) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "signed": _signed, "interval": interval, "chance": chance}
    return environment.get_template(page.template).render(
        page.facts,
        total=page.total,
        listed=listed,
        whole=whole,
        order=page.order,
        pictured=pictured,
        single_file=single_file,
        styles=[Path(style).name for style in STYLES],
        scripts=["data.js", *(Path(script).name for script in SCRIPTS)],
        script_sums=[
            base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            for text in inline.get("inline_scripts", ())
        ],
        **inline,
    )


def _data(page: Page, show: Show, whole: int, listed: int) -> Iterator[str]:
    """A script that says the gallery, sample by sample: as objects a hundred thousand of them take 250 MB."""
    gallery = dict(page.gallery(show, whole, listed))
    samples = map(_script_json, gallery.pop("samples"))
    yield f'var REPORT = {_script_json(gallery)[:-1]},"samples":[{next(samples, "")}'
    for sample in samples:
        yield f",{sample}"
    yield "]};"


def _script_json(value: Any) -> str:
    """JSON that may stand in a script, of a page too: ASCII alone (U+2028 ends a line in old engines), and no `<`,
    with which text from a dataset could end the script."""
    try:
        fast = msgspec.json.encode(value)
        if fast.isascii():
            return fast.decode().replace("<", "\\u003c")
    except UnicodeError:
        pass
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _signed(value: float | None) -> str:
    return number(value, "+")
