"""A benchmark's protocol as data: what a judge is asked about a sample, how the replies are read, what they come to.

The YAML files in configs/protocols are four, docs/benchmarks.md says what each key means; a run keeps its protocol in
provenance.json, so that its report needs no file of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from slurm_bench.config import nearest
from slurm_bench.data.categories import canonical
from slurm_bench.errors import UserError
from slurm_bench.parameters import fitted
from slurm_bench.scorers.base import Score, ScoreRequest
from slurm_bench.scorers.judge.yaml_file import read_yaml
from slurm_bench.scorers.protocols.formula import Formula, parse_formula

if TYPE_CHECKING:
    from slurm_bench.run.plan import Sample

When = Mapping[str, Any]

# What a call may show, and what of a sample's texts and facts a prompt may tell.
SHOWN = ("text", "source", "sources", "edited", "reference", "frames")
TOLD = ("instruction", "rationale", "description", "frame")


@dataclass(frozen=True)
class Images:
    """How the judge is shown an image: as JPEG of this quality or as PNG, at most `longest` pixels a side, the edit at
    the first source's size where `like_source` says so. None is ever enlarged but for that."""

    format: Literal["jpeg", "png"] = "png"
    quality: int = 75
    longest: int | None = None
    like_source: bool = False
    detail: Literal["low", "high", "auto"] | None = None


@dataclass(frozen=True)
class ReplyForm:
    """How a reply ends in its marks, in their order: a JSON object with them under `keys`; one with a list of them
    under the key `list`; or a line a mark, `LABEL: 4`, its labels given or found in the prompt by a regular expression.
    """

    keys: tuple[str, ...] | None = None
    list: str | None = None
    labels: tuple[str, ...] | None = None
    labels_in_prompt: str | None = None


@dataclass(frozen=True)
class Call:
    """One question. It is asked where `when` fits the sample and no call before it gave one of its `marks`. `prompt`
    names texts of the checkout, which are joined by line ends ("{category}" stands for the sample's); `tells` what they
    must have a place for. `range` and `value` are of marks that the judge gives on another scale: value is a formula
    of `mark`."""

    marks: tuple[str, ...]
    prompt: tuple[str, ...]
    show: tuple[str, ...]
    tells: tuple[str, ...] = ()
    when: When = field(default_factory=dict)
    reply: Any = None
    range: tuple[int, int] | None = None
    value: str | None = None


@dataclass(frozen=True)
class SampleScore:
    """A score of a sample, by a formula of its marks. Of several with a name the first that fits counts; `when` may
    look at marks too."""

    name: str
    range: tuple[float, float]
    formula: str
    when: When = field(default_factory=dict)


@dataclass(frozen=True)
class Number:
    """A number that the benchmark publishes. `of` are scores or marks; `mean` is over samples, over categories' means,
    or over all marks of all samples, and `scale` a formula of that `mean`, a straight line upwards. `by` gives it a row
    a category (or a value of another fact), or a row each of its groups of categories. `failures` is what a sample
    counts as whose judgement failed; else it is left out. `ours` is the score whose mean over samples stands beside it,
    as it is, where that isn't `of`, scaled."""

    name: str
    of: tuple[str, ...]
    mean: Literal["samples", "categories", "marks"] = "samples"
    scale: str | None = None
    by: str | Mapping[str, list[str]] | None = None
    failures: float | None = None
    ours: str | None = None
    official: bool = True


@dataclass(frozen=True)
class Protocol:
    """`prompts` is a file in the benchmark's repository. `placeholders` say what stands in a prompt for which of
    `TOLD`. `marks` have the range of each. `samples` is how many the benchmark has, `categories` which, `subsets` and
    `split` by which facts its numbers are cut."""

    name: str
    prompts: str
    marks: Mapping[str, tuple[int, int]]
    calls: tuple[Call, ...]
    scores: tuple[SampleScore, ...]
    numbers: tuple[Number, ...]
    placeholders: Mapping[str, str] = field(default_factory=dict)
    doubled_braces: bool = False
    reply: Any = None
    images: Any = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)
    max_tokens: int = 512
    samples: int | None = None
    categories: tuple[str, ...] = ()
    subsets: Mapping[str, When] = field(default_factory=dict)
    split: str | None = None

    @property
    def declared(self) -> dict[str, Score]:
        """What a sample gets: the scores first, for the first of them is the headline."""
        scores = {score.name: Score(*score.range) for score in self.scores}
        return scores | {mark: Score(*ends) for mark, ends in self.marks.items()}


def load_protocol(file: Path) -> tuple[Protocol, dict[str, Any]]:
    """The protocol, and its file's content as JSON has it. UserError names the file and the field."""
    data, _ = read_yaml(file, "'params.protocol'")
    return read_protocol(data, str(file)), data


def read_protocol(data: Any, where: str) -> Protocol:
    """Raises UserError that names the place in `where`."""
    top = _part(Protocol, data, where)
    protocol = replace(
        top,
        images=read_images(top.images, f"{where}: images"),
        calls=tuple(_call(row, top, f"{where}: calls[{n}]") for n, row in enumerate(top.calls)),
        scores=tuple(_part(SampleScore, row, f"{where}: scores[{n}]") for n, row in enumerate(top.scores)),
        numbers=tuple(_part(Number, row, f"{where}: numbers[{n}]") for n, row in enumerate(top.numbers)),
    )
    _check(protocol, where)
    return protocol


def read_images(data: Any, where: str) -> Images:
    """Raises UserError that names the place in `where`."""
    images: Images = _part(Images, data, where)
    within(images.quality, 1, 100, f"{where}.quality")
    within(images.longest, 1, None, f"{where}.longest")
    return images


def within(value: int | None, low: int, high: int | None, where: str) -> None:
    """Raises UserError where a number that is said is out of its bounds."""
    if value is not None and not low <= value <= (value if high is None else high):
        raise UserError(f"{where} is {value}; it must be {f'{low} to {high}' if high else f'{low} or more'}")


def fits(when: When, values: Mapping[str, Any]) -> bool:
    """Whether each of `when` is what is said there, or in a list of it. What `values` doesn't have is false."""
    for name, wanted in when.items():
        value = values.get(name, False)
        allowed = wanted if isinstance(wanted, list) else [wanted]
        if name == "category":
            value, allowed = canonical(str(value)), [canonical(str(one)) for one in allowed]
        if value not in allowed:
            return False
    return True


def values_of(sample: ScoreRequest | Sample) -> dict[str, Any]:
    """What a protocol's `when` may look at: the sample's facts, its category, and what the judge can be told."""
    return {
        **sample.facts,
        "category": sample.category,
        "has_reference": sample.reference is not None,
        "has_rationale": bool(sample.rationale.strip()),
    }


def calls_for(protocol: Protocol, values: Mapping[str, Any]) -> list[Call]:
    """What is asked about a sample with these `values_of`."""
    found: list[Call] = []
    given = set[str]()
    for call in protocol.calls:
        if given.isdisjoint(call.marks) and fits(call.when, values):
            given.update(call.marks)
            found.append(call)
    return found


def formula(text: str, names: Iterable[str], where: str) -> Formula:
    """Raises UserError where it is none, or of other names."""
    try:
        found = parse_formula(text)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    for name in sorted(found.names - {*names}):
        raise UserError(f"{where}: '{name}' in {text!r} is unknown; {nearest(name, names)}")
    return found


def _part(cls: Any, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{where}: not a mapping with names as keys")
    return cls(**fitted(cls, data, data, where))


def _call(data: Any, protocol: Protocol, where: str) -> Call:
    call = _part(Call, data, where)
    form = _part(ReplyForm, call.reply or protocol.reply or {}, f"{where}.reply")
    said = [value for value in (form.keys, form.list, form.labels, form.labels_in_prompt) if value is not None]
    if len(said) != 1 or (isinstance(said[0], tuple) and len(said[0]) != len(call.marks)):
        raise UserError(f"{where}.reply: one of keys, list, labels and labels_in_prompt, with a name a mark")
    if form.labels_in_prompt is not None:
        _check_pattern(form.labels_in_prompt, f"{where}.reply.labels_in_prompt")
    return replace(call, reply=form)


def _check_pattern(pattern: str, where: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(f"{where}: {pattern!r} is no regular expression ({error})") from None
    if not groups:
        raise UserError(f"{where}: {pattern!r} has no group; put the label into one, as in '^(.+):'")


def _check(protocol: Protocol, where: str) -> None:
    if not protocol.calls or not protocol.scores:
        raise UserError(f"{where}: 'calls' and 'scores' have at least one each")
    within(protocol.max_tokens, 1, None, f"{where}: max_tokens")
    known_marks = [*protocol.marks]
    for token, told in protocol.placeholders.items():
        _one_of([told], TOLD, f"{where}: placeholders[{token}]")
    for n, call in enumerate(protocol.calls):
        _one_of(call.marks, known_marks, f"{where}: calls[{n}].marks")
        _one_of(call.show, SHOWN, f"{where}: calls[{n}].show")
        _one_of(call.tells, [*protocol.placeholders.values()], f"{where}: calls[{n}].tells")
        if call.value is not None:
            formula(call.value, ["mark"], f"{where}: calls[{n}].value")
    for n, score in enumerate(protocol.scores):
        formula(score.formula, known_marks, f"{where}: scores[{n}].formula")
    for n, number in enumerate(protocol.numbers):
        _one_of([*number.of, *([number.ours] if number.ours else [])], [*protocol.declared], f"{where}: numbers[{n}]")
        if number.mean != "marks" and len(number.of) != 1:
            raise UserError(f"{where}: numbers[{n}].of: one name, or mean: marks")
        if number.mean == "marks" and number.ours is None:
            raise UserError(f"{where}: numbers[{n}].ours: the score of a sample that stands beside a mean of marks")
        if number.scale is not None:
            formula(number.scale, ["mean"], f"{where}: numbers[{n}].scale")


def _one_of(said: Iterable[str], known: Iterable[str], where: str) -> None:
    known = list(known)
    for name in said:
        if name not in known:
            raise UserError(f"{where}: no '{name}'; {nearest(name, known)}")
