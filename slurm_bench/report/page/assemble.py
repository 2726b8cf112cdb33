"""A page and the folder `page` beside it, opened from disk, or all in one file. A browser that shows a file loads the
scripts and pictures beside it, but neither modules nor data: so the data are a script as well."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from slurm_bench.errors import UserError
from slurm_bench.report.markdown import interval
from slurm_bench.report.page.pictures import Picture, Show
from slurm_bench.report.page.thumbnails import make_thumbnails
from slurm_bench.run.durable import write_atomic

ASSETS = Path(__file__).parent / "assets"
STYLES = ("page.css",)
SCRIPTS = ("vendor/image-compare.js", "gallery.js", "viewer.js")
LICENCES = ("vendor/image-compare.LICENSE",)

MOST_PICTURED = 2000  # samples with thumbnails: what a page of a large run costs to make and to keep
MOST_LISTED = 100_000  # samples in the gallery: a browser reads 50 MB for them
MOST_BYTES = 18_000_000  # of thumbnails in a single file: base64 makes 24 MB of them, which mail still takes


@dataclass(frozen=True)
class Page:
    """What one page is made of. `pictures` gives those of so many samples, the first in an order that `order` names;
    `gallery` the data of all samples, those one by one, once it is told how a picture is shown, and of how many all
    texts are wanted."""

    template: str
    folder: Path
    name: str
    total: int
    order: str
    pictures: Callable[[int], Sequence[Sequence[Picture]]]
    link: Callable[[Picture], str]
    gallery: Callable[[Show, int], Mapping[str, Any]]
    facts: Mapping[str, Any]

    @property
    def listed(self) -> int:
        """Samples in the gallery."""
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
    write_atomic(page.beside / "data.js", f"{_data(page, show)}\n".encode())
    file = page.folder / f"{page.name}.html"
    write_atomic(file, _render(page, min(page.total, MOST_PICTURED)).encode("utf-8", "replace"))
    return file


def write_single_file(page: Page) -> Path:
    """The page with all that it needs within, to be sent: thumbnails of as many samples as MOST_BYTES hold, the worst
    first, and no full images. Gives its file."""
    thumbnails = _thumbnails(page)
    within: dict[str, str] = {}
    pictured, size = 0, 0
    for pictures in page.pictures(MOST_PICTURED):
        names = {thumbnails[picture][0] for picture in pictures} - {"", *within}
        files = {name: (page.beside / "thumbnails" / name).read_bytes() for name in names}
        size += sum(map(len, files.values()))
        if size > MOST_BYTES:
            break
        pictured += 1
        within |= {name: f"data:image/webp;base64,{base64.b64encode(data).decode()}" for name, data in files.items()}

    def show(picture: Picture) -> Mapping[str, str]:
        name, problem = thumbnails.get(picture, ("", ""))
        return {"role": picture.role, "thumb": within.get(name, ""), "full": "", "problem": problem}

    licences = "".join(f"/*\n{(ASSETS / licence).read_text()}*/\n" for licence in LICENCES)
    scripts = [_data(page, show), licences + (ASSETS / SCRIPTS[0]).read_text()]
    scripts += [(ASSETS / script).read_text() for script in SCRIPTS[1:]]
    styles = [(ASSETS / style).read_text() for style in STYLES]
    file = page.folder / f"{page.name}-single.html"
    text = _render(page, pictured, single_file=True, inline_styles=styles, inline_scripts=scripts)
    write_atomic(file, text.encode("utf-8", "replace"))
    return file


def _thumbnails(page: Page) -> Mapping[Picture, tuple[str, str]]:
    pictures = [picture for sample in page.pictures(MOST_PICTURED) for picture in sample]
    return make_thumbnails(pictures, page.beside / "thumbnails")


def _render(page: Page, pictured: int, single_file: bool = False, **inline: Sequence[str]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "signed": _signed, "interval": interval}
    return environment.get_template(page.template).render(
        page.facts,
        total=page.total,
        listed=page.listed,
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


def _data(page: Page, show: Show) -> str:
    """A script that says the gallery, sample by sample: as objects a hundred thousand of them take 250 MB."""
    gallery = dict(page.gallery(show, MOST_PICTURED))
    samples = ",".join(map(_script_json, gallery.pop("samples")))
    return f'var REPORT = {_script_json(gallery)[:-1]},"samples":[{samples}]}};'


def _script_json(value: Any) -> str:
    """JSON that may stand in a script, of a page too: ASCII alone (U+2028 ends a line in old engines), and no `<`,
    with which text from a dataset could end the script."""
    with suppress(UnicodeError):
        fast = msgspec.json.encode(value)
        if fast.isascii():
            return fast.decode().replace("<", "\\u003c")
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _number(value: float | None) -> str:
    """Three decimals, fewer for large numbers."""
    return "–" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"
