"""report.html and the folder `page` beside it: the run for a person to look at, opened from disk. A browser that shows
a file loads scripts and pictures beside it, but neither modules nor data: so the data are a script as well."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slurm_bench.report.judges import judge_notes
from slurm_bench.report.markdown import counted, interval
from slurm_bench.report.page.causes import causes
from slurm_bench.report.page.facts import for_a_paper, what_was_run
from slurm_bench.report.page.pictures import Picture, pictures_of
from slurm_bench.report.page.plots import axis_over, histogram
from slurm_bench.report.page.samples import Show, gallery_sample, rows_of, worst_first
from slurm_bench.report.page.thumbnails import make_thumbnails
from slurm_bench.report.page.timeline import timeline
from slurm_bench.report.table import score_columns
from slurm_bench.run.durable import write_atomic
from slurm_bench.run.opened import Run
from slurm_bench.run.records import State

if TYPE_CHECKING:
    import pandas as pd

ASSETS = Path(__file__).parent / "assets"
STYLES = ("page.css",)
SCRIPTS = ("vendor/image-compare.js", "gallery.js", "viewer.js")
LICENCES = ("vendor/image-compare.LICENSE",)

MOST_PICTURED = 2000  # samples with thumbnails: what a page of a large run costs to make and to keep
MOST_BYTES = 18_000_000  # of thumbnails in a single file: base64 makes 24 MB of them, which mail still takes


@dataclass(frozen=True)
class Report:
    """A run and what was computed of it: all that a page is made of."""

    run: Run
    state: State
    table: pd.DataFrame
    summary: Mapping[str, Any]
    provenance: Mapping[str, Any]


def write_page(report: Report) -> Path:
    """Thumbnails that are there already are kept. Gives the page's file."""
    run, folder = report.run, report.run.folder.report / "page"
    thumbnails, pictured = _thumbnails(report, folder)

    def show(picture: Picture) -> Mapping[str, str]:
        name, problem = thumbnails.get(picture, ("", ""))
        thumb = f"page/thumbnails/{name}" if name else ""
        return {"role": picture.role, "thumb": thumb, "full": picture.link(run.folder), "problem": problem}

    for asset in (*STYLES, *SCRIPTS, *LICENCES):
        write_atomic(folder / Path(asset).name, (ASSETS / asset).read_bytes())
    write_atomic(folder / "data.js", f"var REPORT = {_script_json(_gallery(report, show))};\n".encode())
    page = run.folder.report / "report.html"
    write_atomic(page, _render(report, pictured=pictured).encode("utf-8", "replace"))
    return page


def write_single_file(report: Report) -> Path:
    """The page with all that it needs within, to be sent: thumbnails of as many samples as MOST_BYTES hold, the worst
    first, and no full images. Gives its file."""
    run, folder = report.run, report.run.folder.report / "page"
    thumbnails, most = _thumbnails(report, folder)
    within: dict[str, str] = {}
    pictured, size = 0, 0
    for sample in _worst(report)[:most]:
        names = {thumbnails[picture][0] for picture in pictures_of(run.folder, *sample)} - {"", *within}
        files = {name: (folder / "thumbnails" / name).read_bytes() for name in names}
        size += sum(map(len, files.values()))
        if size > MOST_BYTES:
            break
        pictured += 1
        within |= {name: f"data:image/webp;base64,{base64.b64encode(data).decode()}" for name, data in files.items()}

    def show(picture: Picture) -> Mapping[str, str]:
        name, problem = thumbnails.get(picture, ("", ""))
        return {"role": picture.role, "thumb": within.get(name, ""), "full": "", "problem": problem}

    data = f"var REPORT = {_script_json(_gallery(report, show))};"
    licences = "".join(f"/*\n{(ASSETS / licence).read_text()}*/\n" for licence in LICENCES)
    scripts = [data, *((ASSETS / script).read_text() for script in SCRIPTS)]
    scripts[1] = licences + scripts[1]
    styles = [(ASSETS / style).read_text() for style in STYLES]
    page = run.folder.report / "report-single.html"
    text = _render(report, pictured=pictured, single_file=True, inline_styles=styles, inline_scripts=scripts)
    write_atomic(page, text.encode("utf-8", "replace"))
    return page


def _worst(report: Report) -> list[tuple[Any, Any]]:
    """(sample, its edit record), the worst first."""
    order = worst_first(report.table, report.summary["headline"], _higher_is_better(report))
    samples = [report.state.samples[position] for position in order]
    return [(sample, report.state.edits[sample.id].ok) for sample in samples]


def _thumbnails(report: Report, folder: Path) -> tuple[Mapping[Picture, tuple[str, str]], int]:
    """By picture, and of how many samples."""
    worst = _worst(report)[:MOST_PICTURED]
    pictures = [picture for sample in worst for picture in pictures_of(report.run.folder, *sample)]
    return make_thumbnails(pictures, folder / "thumbnails"), len(worst)


def _gallery(report: Report, show: Show) -> dict[str, Any]:
    rows = rows_of(report.table)
    whole = {sample.id for sample, _ in _worst(report)[:MOST_PICTURED]}
    return {
        "run": report.run.root.name,
        "headline": report.summary["headline"],
        "higherIsBetter": _higher_is_better(report),
        "scores": score_columns(report.table),
        "samples": [
            gallery_sample(report.run, report.state, sample, row, show, sample.id in whole)
            for sample, row in zip(report.state.samples, rows, strict=True)
        ],
    }


def _render(report: Report, pictured: int, single_file: bool = False, **inline: Sequence[str]) -> str:
    import jinja2

    summary = report.summary
    rows = summary["categories"]
    means = [row for kinds in summary["overall"].values() for row in kinds.values()]
    bounds = [row[key] for row in (*rows.values(), *means) for key in ("mean", "ci_low", "ci_high")]
    values, scale = _values(report), _scale(report)
    ends = [scale.get("low"), scale.get("high")]
    value_axis = axis_over(ends if None not in ends else [value for group in values.values() for value in group])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "interval": interval}
    environment.globals["counted"] = counted
    scripts = inline.get("inline_scripts", ())
    return environment.get_template("report.html.j2").render(
        name=report.run.root.name,
        config=report.run.config,
        summary=summary,
        provenance=report.provenance,
        groups=what_was_run(report.run.config, summary, report.provenance),
        paper=for_a_paper(report.run.config, summary, report.provenance),
        axis=axis_over(bounds),
        value_axis=value_axis,
        histograms={} if value_axis is None else {name: histogram(group, value_axis) for name, group in values.items()},
        causes=causes(summary["failures"]),
        judges=judge_notes(summary),
        timeline=timeline(report.state),
        total=len(report.table),
        pictured=pictured,
        single_file=single_file,
        styles=[Path(style).name for style in STYLES],
        scripts=["data.js", *(Path(script).name for script in SCRIPTS)],
        script_sums=[base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts],
        **inline,
    )


def _values(report: Report) -> dict[str, list[float]]:
    """The headline score's numbers, under "" of all samples, then by category."""
    score, table = report.summary["headline"], report.table
    if score not in table.columns:
        return {}
    found: dict[str, list[float]] = {"": []}
    for category, value in zip(table["category"], table[score], strict=True):
        if not math.isnan(value):
            found[""].append(float(value))
            found.setdefault(str(category), []).append(float(value))
    return found


def _scale(report: Report) -> Mapping[str, Any]:
    """The headline score's, as its scorer declared it; {} where it didn't."""
    return report.summary["scales"].get(report.summary["headline"]) or {}


def _higher_is_better(report: Report) -> bool:
    return _scale(report).get("higher_is_better") is not False


def _script_json(value: Any) -> str:
    """JSON that may stand in a script, of a page too: ASCII alone (U+2028 ends a line in old engines), and no `<`,
    with which text from a dataset could end the script."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _number(value: float | None) -> str:
    """Three decimals, fewer for large numbers."""
    return "–" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"
