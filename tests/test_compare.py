"""Two editors on the same samples: paired, and only what can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import launch, run_dir
from PIL import Image
from rich.console import Console
from scipy import stats

from slurm_bench.cli import main
from slurm_bench.config import Config, DataConfig, PluginConfig, dump
from slurm_bench.errors import UserError
from slurm_bench.report.compare import compare_runs, refusals
from slurm_bench.report.compare_table import render
from slurm_bench.report.cost import cost_in_words
from slurm_bench.report.paired import Paired, compare_pairs, holm, verdict
from slurm_bench.report.statistics import difference_of
from slurm_bench.run.durable import json_line, write_atomic
from slurm_bench.run.plan import Sample
from slurm_bench.scorers.metrics import lpips
from slurm_bench.stages.picture import encode_png

SCALE = {"judge": {"overall": [0, 10, True]}}
Scores = Mapping[str, float | None]


def a_run(
    root: Path,
    scores: Scores,
    instruction: str = "do",
    seed: int = 0,
    sources: Mapping[str, str] | None = None,
    says: Mapping[str, Any] | None = None,
    declared: Mapping[str, Any] = SCALE,
    scorer: str = "judge",
    params: Mapping[str, Any] | None = None,
    images: Mapping[str, Image.Image] | None = None,
) -> Path:
    """A finished run in `root`; a score of None is a failure to judge. Its categories are the ids' first letters."""
    folder = run_dir(root)
    editor = PluginConfig("m.E", dict(params or {}))
    config = Config(seed=seed, data=DataConfig(), editor=editor, scorers={scorer: PluginConfig("m.Judge")})
    samples = [Sample(n, i, i[0], instruction, (f"{i}.png",), seed) for n, i in enumerate(scores)]
    mark = str(sorted((says or {}).items()))
    provenance = {
        "by": {"editor": "e", f"scorers.{scorer}": mark},
        "models": {f"scorers.{scorer}": dict(says or {})},
        "scores": {scorer: next(iter(declared.values()))} if declared else {},
    }
    write_atomic(folder.config, dump(config).encode())
    write_atomic(folder.plan, b"".join(json_line(sample.to_json()) for sample in samples))
    write_atomic(folder.provenance, json.dumps(provenance).encode())
    edits, judged = [], []
    for i, score in scores.items():
        image = encode_png(images[i]) if images else b""
        write_atomic(root / f"edit/images/{i}.png", image)
        source = (sources or {}).get(i, i)
        sha = hashlib.sha256(image).hexdigest()
        common = {"id": i, "source_sha256": source, "seconds": 1.0, "host": "h"}
        edits.append({**common, "status": "ok", "sha256": sha, "image": f"edit/images/{i}.png", "by": "e"})
        result: dict[str, Any] = {"status": "ok", "scores": {"overall": score}, "raw": "", "parse": "ok"}
        if score is None:
            result = {"status": "error", "error": {"type": "ParseFailure", "message": "prose"}}
        judged.append({**common, **result, "scorer": scorer, "edit_sha256": sha, "by": mark})
    for stage, records in (("edit", edits), ("score", judged)):
        write_atomic(folder.manifest(stage, 1, 0, 0), b"".join(json_line(record) for record in records))
    return root


def compared(tmp_path: Path, first: Scores, other: Scores, **more: Any) -> dict[str, Any]:
    a, b = a_run(tmp_path / "A", first), a_run(tmp_path / "B", other, **more)
    return compare_runs([a, b])["comparisons"][0]


def test_what_stands_in_a_mean_as_the_end_of_its_scale_is_told(tmp_path: Path, capsys: Any) -> None:
    declared = {"judge": {"overall": [0, 100, True, "equal images"]}}
    scores = {f"a{n}": 20.0 + n for n in range(12)}
    a = a_run(tmp_path / "A", scores, declared=declared)
    b = a_run(tmp_path / "B", {**scores, "a1": 100.0}, declared=declared)
    c = a_run(tmp_path / "C", scores, declared={"judge": {"overall": [0, 100, True]}})
    assert main(["compare", str(a), str(b), "--html", str(tmp_path / "page")]) == 0
    said = "1 of 12 are equal images, which stand in the mean of overall in B as 100: the mean of the others is 25.909."
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "page" / "compare.html").read_text()
    assert refusals(compare_runs([a, c])) == [], "a run of an earlier version doesn't say it"


def test_a_small_difference_that_tables_do_not_show_is_seen_in_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hard = {f"{'pc'[n % 2]}{n}": float(s) for n, s in enumerate(rng.uniform(1, 8, 60))}
    found = compared(tmp_path, hard, {i: s + 0.3 + float(rng.normal(0, 0.3)) for i, s in hard.items()})
    assert found["verdict"] == "better"
    assert found["words"].startswith("B is better by 0.")
    assert (found["n"], found["left_out"]) == (60, {})
    assert found["difference"] == pytest.approx(found["mean_other"] - found["mean_first"])
    assert found["wins"] + found["ties"] + found["losses"] == 60
    assert found["ci_low"] > 0
    assert set(found["categories"]) == {"p", "c"}
    assert all(row["p_holm"] >= row["p"] for row in found["categories"].values())
    assert [abs(one["difference"]) for one in found["largest"]] == sorted(
        (abs(one["difference"]) for one in found["largest"]), reverse=True
    )


def test_what_is_not_compared_is_counted_with_its_reason(tmp_path: Path) -> None:
    first = {f"a{n}": 5.0 for n in range(8)} | {"x0": 1.0, "a8": None, "a9": 4.0}
    other = {f"a{n}": 6.0 for n in range(8)} | {"y0": 1.0, "a8": 4.0, "a9": None}
    found = compared(tmp_path, first, other, sources={"a7": "another"})
    assert found["n"] == 7
    assert found["left_out"] == {
        "only in the plan of A": 1,
        "only in the plan of B": 1,
        "the source image differs (sha256)": 1,
        "failed in A": 1,
        "failed in B": 1,
    }
    failures = found["failures_as_zero"]
    assert (failures["n"], failures["failure_counts_as"]) == (9, 0)
    assert failures["mean_other"] == pytest.approx((7 * 6 + 4 + 0) / 9)


def test_failures_count_as_the_worst_of_a_scale_that_is_better_when_lower(tmp_path: Path) -> None:
    scale = {"judge": {"overall": [0, 1, False]}}
    a = a_run(tmp_path / "A", {f"a{n}": 0.5 for n in range(9)} | {"b": 0.5}, declared=scale)
    b = a_run(tmp_path / "B", {f"a{n}": 0.1 for n in range(9)} | {"b": None}, declared=scale)
    found = compare_runs([a, b])["comparisons"][0]
    assert (found["verdict"], found["wins"], found["losses"]) == ("better", 9, 0)
    assert found["failures_as_zero"]["failure_counts_as"] == 1
    assert found["failures_as_zero"]["losses"] == 1


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"says": {"model": "other"}}, "judge model: 'one' → 'other'"),
        ({"says": {"model": "one", "rubrics_sha256": "feed"}}, "judge rubrics_sha256: 'face' → 'feed'"),
        ({"declared": {"judge": {"overall": [1, 5, True]}}}, "scale"),
    ],
)
def test_numbers_of_two_kinds_are_refused_by_name(
    tmp_path: Path, more: dict[str, Any], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {f"a{n}": float(n) / 2 for n in range(12)}
    says = {"model": "one", "rubrics_sha256": "face"}
    roots = [a_run(tmp_path / "A", scores, says=says), a_run(tmp_path / "B", scores, **({"says": says} | more))]
    assert any(word in line for line in refusals(compare_runs(roots)))
    assert main(["compare", *map(str, roots)]) == 1
    assert word in capsys.readouterr().err
    assert main(["compare", *map(str, roots), "--force"]) == 0
    assert word in capsys.readouterr().out


def test_what_only_one_run_knows_of_its_judge_is_named_and_no_contradiction(tmp_path: Path) -> None:
    scores = {f"a{n}": float(n) / 2 for n in range(12)}
    found = compared(tmp_path, scores, scores, says={"commit": "abc"})
    assert not found["not_comparable"]
    assert "the judge: only one run tells its commit" in found["cautions"]


@pytest.mark.parametrize(
    "pairs", [[(5.0, 6.0)], [(5.0, 5.0)], [(1.0, 2.0), (1.0, 2.0)], [(1.0, None)], [(0.0, 1.0)] * 12]
)
def test_few_and_equal_scores_are_json_too(tmp_path: Path, pairs: list[tuple[float, float | None]]) -> None:
    sides = [{f"a{n}": pair[k] for n, pair in enumerate(pairs)} for k in (0, 1)]
    roots = [a_run(tmp_path / name, side) for name, side in zip("AB", sides, strict=True)]
    json.dumps(compare_runs(roots, score="overall"), allow_nan=False)
    with pytest.raises(UserError, match="--margin"):
        compare_runs(roots, score="overall", margin=float("nan"))


def test_what_else_differs_is_named(tmp_path: Path) -> None:
    scores = {f"a{n}": float(n) / 2 for n in range(12)}
    found = compared(tmp_path, scores, scores, seed=1, params={"num_inference_steps": 4})
    assert any("12 samples have other seeds" in line for line in found["cautions"])
    assert any("num_inference_steps" in line for line in found["editors_differ_in"])
    assert not found["not_comparable"]
    assert found["verdict"] == "no difference"


def test_samples_that_were_asked_otherwise_are_no_pairs(tmp_path: Path) -> None:
    scores = {f"a{n}": 1.0 for n in range(12)}
    with pytest.raises(UserError, match=r"no sample in common \(the instruction differs: 12, as 'a0'\)"):
        compared(tmp_path, scores, scores, instruction="do otherwise")


def test_another_reference_or_mask_makes_no_pair(tmp_path: Path) -> None:
    """Whether they are files of the data or were unpacked from it; a copy elsewhere is no other."""
    scores = {f"s{n}": 5.0 for n in range(5)}
    for run in "ab":
        root = a_run(tmp_path / run, scores)
        for name in ("same", "other", "mask"):
            write_atomic(tmp_path / run / f"sources/{name}.png", (name if name == "same" else name + run).encode())
        plan = run_dir(root).plan
        rows = [json.loads(line) for line in plan.read_text().splitlines()]
        rows[0]["reference"], rows[1]["reference"] = "sources/same.png", "sources/other.png"
        rows[2]["mask"] = str(root / "sources/mask.png")
        rows[3] |= {"reference": f"/gone/{run}.png"}
        rows[4] |= {"reference": "sources/same.png"} if run == "a" else {}
        write_atomic(plan, b"".join(json_line(row) for row in rows))
    (row,) = compare_runs([tmp_path / "a", tmp_path / "b"])["comparisons"]
    assert (row["n"], row["left_out"]) == (2, {"the reference image differs": 2, "the mask image differs": 1})


def test_runs_of_other_samples_are_told_apart_by_an_id_of_each(tmp_path: Path) -> None:
    mine, theirs = {f"a{n}": 1.0 for n in range(12)}, {f"A{n}": 1.0 for n in range(3)}
    why = r"\(only in the plan of A: 12, as 'a0'; only in the plan of B: 3, as 'A0'\); samples are paired by id"
    with pytest.raises(UserError, match=why):
        compared(tmp_path, mine, theirs)


def test_a_scorer_may_be_called_otherwise_in_another_run(tmp_path: Path) -> None:
    scores = {f"a{n}": float(n) for n in range(10)}
    found = compared(tmp_path, scores, scores, scorer="the_judge")
    assert (found["n"], found["left_out"]) == (10, {})
    with pytest.raises(UserError, match="no scorer 'judge' gave the score 'overal' there"):
        compare_runs([tmp_path / "A", tmp_path / "B"], score="overal")


def test_a_score_need_not_name_its_scorer_beside_a_second_one(tmp_path: Path) -> None:
    scores = {f"a{n}": float(n) for n in range(10)}
    roots = [a_run(tmp_path / name, scores) for name in "AB"]
    for root in roots:
        file = run_dir(root).config
        file.write_text(file.read_text().replace("scorers:\n", "scorers:\n  other:\n    class_path: m.Other\n", 1))
    for name in ("overall", "judge.overall"):
        assert compare_runs(roots, score=name)["comparisons"][0]["n"] == 10
    with pytest.raises(UserError, match=r"no scorer gave the score 'overal' there; did you mean 'overall'\?"):
        compare_runs(roots, score="overal")


def test_several_runs_are_each_against_the_first_and_ranked(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    base = {f"a{n}": float(s) for n, s in enumerate(rng.uniform(2, 7, 40))}
    runs = [
        a_run(tmp_path / name, {i: s + by for i, s in base.items()}) for name, by in [("A", 0), ("B", -1), ("C", 1)]
    ]
    found = compare_runs(runs)
    assert [row["verdict"] for row in found["comparisons"]] == ["worse", "better"]
    assert [row["run"] for row in found["ranking"]] == ["C", "A", "B"]
    assert found["comparisons"][0]["p_holm"] >= found["comparisons"][0]["p"]


@pytest.mark.parametrize(("higher_is_better", "order"), [(True, "CAB"), (False, "BAC"), (None, "CAB")])
def test_the_best_is_ranked_first(tmp_path: Path, higher_is_better: bool | None, order: str) -> None:
    declared = {"other": {"overall": [0, None, higher_is_better]}}
    runs = [
        a_run(tmp_path / name, {f"a{n}": n + by for n in range(9)}, declared=declared, scorer="other")
        for name, by in [("A", 1.0), ("B", 0.0), ("C", 2.0)]
    ]
    assert "".join(row["run"] for row in compare_runs(runs)["ranking"]) == order


@pytest.mark.parametrize("width", [20, 40, 80, 400])
def test_no_number_is_cut_in_a_narrow_terminal(tmp_path: Path, width: int) -> None:
    rng = np.random.default_rng(2)
    base = {f"{'pc'[n % 2]}{n}": float(s) for n, s in enumerate(rng.uniform(2, 7, 40))}
    others = [{i: s + by + float(rng.normal(0, 0.3)) for i, s in base.items()} for by in (0.3, -0.2)]
    found = compare_runs([a_run(tmp_path / f"run-{n}", scores) for n, scores in enumerate([base, *others])])
    said = StringIO()
    render(found, Console(width=width, file=said))
    plain = " ".join(said.getvalue().split())
    assert "…" not in plain
    for row in found["comparisons"]:
        assert f"{row['ci_low']:.3f} to {row['ci_high']:.3f}" in plain
        assert f"{row['difference']:+.3f}" in plain
    is_table = any(line.count("  ") > 5 for line in said.getvalue().splitlines() if "all pairs" in line)
    assert is_table == (width == 400)


def test_the_cost_of_another_profile_is_told_in_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = {f"a{n}": rng.integers(0, 200, (32, 48, 3), dtype=np.uint8) for n in range(4)}
    near = {i: (array + (5 if i != "a0" else 0)).astype(np.uint8) for i, array in pixels.items()}
    scores = dict.fromkeys(pixels, 1.0)
    roots = [
        a_run(tmp_path / name, scores, images={i: Image.fromarray(array) for i, array in arrays.items()})
        for name, arrays in (("A", pixels), ("B", near))
    ]
    cost = compare_runs(roots, pictures=True)["comparisons"][0]["images"]
    assert (cost["edited_by_both"], cost["identical"], cost["psnr"]["n"]) == (4, 1, 3)
    assert cost["psnr"]["mean"] == pytest.approx(20 * np.log10(255 / 5)), "equal images are in no mean"
    assert 0.9 < cost["ssim"]["mean"] < 1


def test_lpips_of_the_images_is_told_where_its_weights_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchvision = pytest.importorskip("torchvision")
    pytest.importorskip("torchmetrics")
    import torch

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    rng = np.random.default_rng(0)
    pixels = {i: rng.integers(0, 200, (64, 80, 3), dtype=np.uint8) for i in ("a0", "a1")}
    scores = dict.fromkeys(pixels, 1.0)
    roots = [
        a_run(tmp_path / name, scores, images={i: Image.fromarray(array + by) for i, array in pixels.items()})
        for name, by in (("A", 0), ("B", np.uint8(40)))
    ]
    lacking = compare_runs(roots, pictures=True)["comparisons"][0]["images"]
    assert (lacking["lpips"]["n"], "its weights aren't in" in lacking["no_lpips"]) == (0, True)
    with torch.device("meta"):
        shapes = torchvision.models.alexnet(weights=None).state_dict()
    torch.manual_seed(0)
    weights = {key: torch.randn(value.shape) for key, value in shapes.items() if key.startswith("features.")}
    file = tmp_path / "hub" / "checkpoints" / "alexnet.pth"
    file.parent.mkdir(parents=True)
    torch.save(weights, file)
    file = file.rename(file.with_name(f"alexnet-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"))
    monkeypatch.setitem(lpips.BACKBONES, "alex", ("alexnet", file.name))
    found = compare_runs(roots, pictures=True)["comparisons"][0]
    assert (found["images"]["lpips"]["n"], found["images"]["no_lpips"]) == (2, "")
    assert found["images"]["lpips"]["mean"] > 0
    assert "LPIPS 0." in cost_in_words(found)[0]


def test_verdicts_in_words(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def of(differences: np.ndarray, margin: float) -> tuple[str, str]:
        found = compare_pairs(np.zeros(len(differences)), differences)
        return verdict(found, found.p, True, margin, "B")

    assert of(rng.normal(0.5, 1, 200), 0.5)[0] == "better"
    assert of(rng.normal(-0.5, 1, 200), 0.5)[0] == "worse"
    assert of(rng.normal(0, 1, 400), 0.5)[1].startswith("no difference larger than 0.")
    kind, words = of(rng.normal(0.05, 1, 30), 0.2)
    assert kind == "can't say"
    assert "30 samples would show one of 0." in words
    assert verdict(Paired(0), None, True, 1, "B")[0] == "can't say"
    assert of(np.array([1.0, 1.0, 1.0]), 0.5)[0] == "can't say", "three wins happen by chance"
    assert of(np.array([1.0] * 8), 0.5)[0] == "better", "eight of eight don't"


def test_tests_agree_with_scipys() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, 12), rng.normal(0.4, 1, 12)
    found = compare_pairs(a, b)
    exact = stats.permutation_test((b - a,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert found.p == pytest.approx(exact.pvalue, abs=1e-9)
    assert found.p_sign == pytest.approx(stats.binomtest(found.wins, 12).pvalue)
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(b - a).pvalue)
    big_a, big_b = rng.normal(0, 1, 300), rng.normal(0.12, 1, 300)
    by_t = stats.ttest_rel(big_b, big_a).pvalue
    assert compare_pairs(big_a, big_b).p == pytest.approx(by_t, abs=0.02)
    assert found.smallest_effect == pytest.approx(2.80 * np.std(b - a, ddof=1) / 12**0.5)
    assert holm([0.01, 0.04, 0.03, None]) == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06), None]


def test_another_source_is_seen_where_the_first_seed_failed(tmp_path: Path) -> None:
    scores = {"a0": 5.0, "a1": 6.0, "a0@2": 5.0, "a1@2": 6.0}
    a = a_run(tmp_path / "A", scores, sources={"a0@2": "a0", "a1@2": "a1"})
    b = a_run(tmp_path / "B", scores, sources={"a0": "another", "a0@2": "another", "a1@2": "a1"})
    for root in (a, b):
        plan = [json.loads(line) for line in (root / "plan.jsonl").read_text().splitlines()]
        seeds = [{**row, "sample": row["id"][:2], "repeat": 1 + row["id"].endswith("@2")} for row in plan]
        write_atomic(root / "plan.jsonl", b"".join(map(json_line, seeds)))
    (edits,) = (b / "edit" / "records").iterdir()
    edits.write_text("".join(edits.read_text().splitlines(keepends=True)[1:]))
    found = compare_runs([a, b])["comparisons"][0]
    assert (found["n"], found["left_out"]) == (1, {"the source image differs (sha256)": 1})


def test_the_page_gives_a_difference_of_pairs_alone_and_the_p_that_decides(tmp_path: Path) -> None:
    scores = {f"a{n}": 5.0 + n / 10 for n in range(12)}
    a = a_run(tmp_path / "A", scores)
    b = a_run(tmp_path / "B", {i: s + 1 for i, s in scores.items()}, sources={"a3": "another"})
    c = a_run(tmp_path / "C", {i: s + (-1) ** n * 0.1 for n, (i, s) in enumerate(scores.items())})
    assert main(["compare", str(a), str(b), str(c), "--html", str(tmp_path / "page")]) == 0
    script = (tmp_path / "page" / "page" / "data.js").read_text()
    samples = {s["id"]: s for s in json.loads(script.removeprefix("var REPORT = ").rstrip().rstrip(";"))["samples"]}
    assert samples["a2"]["scores"]["B − A"] == pytest.approx(1)
    assert "B − A" not in samples["a3"]["scores"], "it is no pair"
    assert samples["a3"]["scores"].keys() == {"C − A", "A", "B", "C"}
    assert samples["a3"]["error"] == "the source image differs (sha256), in B"
    compared = compare_runs([a, b, c])["comparisons"]
    page = (tmp_path / "page" / "compare.html").read_text()
    for row in compared:
        shown = "<0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"
        assert f"by which it is decided, that of all pairs is {shown.replace('<', '&lt;')}." in page


def test_the_smallest_effect_is_of_the_differences_not_of_how_many_samples_a_source_has() -> None:
    rng = np.random.default_rng(0)
    sources = [n for n in range(20) for _ in range(10 if n % 2 else 1)]
    found = compare_pairs([0.0] * len(sources), list(1 + rng.normal(0, 0.1, len(sources))), sources)
    assert found.ci_low is not None
    assert found.ci_high is not None
    standard_error = (found.ci_high - found.ci_low) / 2 / stats.t.ppf(0.975, 19)
    assert found.smallest_effect == pytest.approx(2.80 * standard_error, rel=0.05)


def test_differences_that_are_equal_but_for_rounding_are_ties() -> None:
    """Means over three seeds are thirds: 1/3 + 1/3 is as far as 2/3."""
    thirds = [1, 1, 1, -2, 1, -2, 1, -1, 2, -1, 2, -2, -3, -1]
    found = compare_pairs([0.0] * 14, [n / 3 for n in thirds])
    assert found.p == compare_pairs([0.0] * 14, [float(n) for n in thirds]).p
    # Of the sources each differs by 0.2, if by 0.6 / 3 or by 0.2 / 1.
    sizes = [1 + 2 * (n % 2) for n in range(9)]
    sources = [n for n, size in enumerate(sizes) for _ in range(size)]
    ways = [-0.2 if n in (1, 4, 5) else 0.2 for n in sources]
    alike = compare_pairs([0.0] * 9, [-0.2 if n in (1, 4, 5) else 0.2 for n in range(9)])
    assert compare_pairs([0.0] * len(ways), ways, sources).p_wilcoxon == pytest.approx(alike.p_wilcoxon)


def test_a_p_of_a_twentieth_is_not_under_it() -> None:
    found = Paired(20, 0.0, 1.0, 1.0, 0.1, 1.9, 1.0, 15, 0, 5, 0.05)
    assert verdict(found, 0.05, True, 0.1, "B")[0] == "can't say"
    assert verdict(found, 0.0499, True, 0.1, "B")[0] == "better"
    touching = replace(found, ci_low=-0.01)
    assert verdict(touching, 0.0499, True, 0.1, "B")[0] == "can't say", "the interval has no difference in it"


def test_a_source_whose_differences_cancel_out_is_a_tie() -> None:
    """In floating point 0.1 + 0.2 - 0.3 isn't 0."""
    differences = [0.1, 0.2, -0.3] * 6
    found = compare_pairs([0.0] * 18, differences, [n // 3 for n in range(18)])
    assert found.clusters == 6
    assert (found.p, found.p_sign, found.p_wilcoxon) == (1.0, 1.0, 1.0)
    assert found.smallest_effect is None


def test_passes_and_fails_are_compared_by_mcnemar() -> None:
    a, b = [1.0] * 30 + [0.0] * 20, [1.0] * 28 + [0.0] * 2 + [1.0] * 12 + [0.0] * 8
    found = compare_pairs(a, b)
    assert (found.wins, found.ties, found.losses) == (12, 36, 2)
    assert found.p_mcnemar == pytest.approx(stats.binomtest(2, 14).pvalue)
    assert found.ci_low is not None
    assert 0 < found.ci_low < 0.2
    one = compare_pairs([0.0] * 10, [1.0] + [0.0] * 9)
    assert one.ci_low is not None
    assert one.ci_low < 0, "one win of ten shows nothing"


def test_marks_of_0_and_1_on_a_longer_scale_are_no_passes_and_fails() -> None:
    """Others may be 10, which an interval of shares, of at most 1 either way, would never hold."""
    a, b = [0.0] * 12, [1.0] * 4 + [0.0] * 8
    found, by_t = compare_pairs(a, b, low=0, high=10), difference_of(b)
    assert (found.p_mcnemar, found.ci_low, found.ci_high) == (None, by_t.ci_low, by_t.ci_high)
    assert compare_pairs(a, b, low=0, high=1).p_mcnemar is not None


def test_paired_intervals_cover_and_chance_is_rarely_called_a_difference() -> None:
    rng = np.random.default_rng(5)
    sources = [n // 4 for n in range(80)]
    held = called = naive = 0
    for _ in range(120):
        d = np.repeat(rng.normal(0, 1, 20), 4) + rng.normal(0, 0.5, 80)
        found = compare_pairs(np.zeros(80), d, sources)
        held += found.ci_low <= 0 <= found.ci_high  # type: ignore[operator]
        called += found.p is not None and found.p < 0.05
        naive += compare_pairs(np.zeros(80), d).p < 0.05  # type: ignore[operator]
    assert held >= 0.9 * 120
    assert called <= 0.1 * 120
    assert naive > 0.2 * 120, "which is what ignoring the sources gives"


def test_on_the_terminal_and_as_json(tmp_path: Path, finished_run: str) -> None:
    shown = launch("compare", finished_run, finished_run)
    assert shown.returncode == 0, shown.stderr
    assert "no difference at all: the scores of all 24 samples are equal" in shown.stdout
    read = launch("compare", finished_run, finished_run, "--json")
    assert json.loads(read.stdout)["comparisons"][0]["n"] == 24
    alone = launch("compare", finished_run)
    assert alone.returncode == 2
    assert "name two of RUN or more" in alone.stderr
