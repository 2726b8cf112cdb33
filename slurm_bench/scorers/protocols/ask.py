"""A sample and a protocol → the questions to the judge: which calls, their texts, their images in order."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from slurm_bench.data.categories import canonical
from slurm_bench.errors import SampleError, UserError
from slurm_bench.scorers.base import ScoreRequest
from slurm_bench.scorers.judge.prompt import flat
from slurm_bench.scorers.judge.question import Picture
from slurm_bench.scorers.protocols.description import Call, Images, Protocol, calls_for, values_of
from slurm_bench.scorers.protocols.prompts import KEY, named

OF_CATEGORY = "{category}"  # a prompt's name that is the sample's category


@dataclass(frozen=True)
class Asked:
    """One call about one sample. `labels` are those that its prompt asks the marks under, where it says so."""

    call: Call
    parts: tuple[str | Picture, ...]
    labels: tuple[str, ...] = ()


def questions(protocol: Protocol, prompts: Mapping[str, str], request: ScoreRequest) -> list[Asked]:
    """Raises SampleError where the judge would be asked about nothing."""
    if not request.instruction.strip():
        raise SampleError("the instruction is empty: there is nothing to judge the edit by")
    asked, made = [], dict[int, Picture]()
    for call in calls_for(protocol, values_of(request)):
        prompt = _text(call, prompts, request.category)
        parts = _parts(protocol, call, _told(protocol, prompt, request), request, made)
        asked.append(Asked(call, tuple(parts), labels_in(call, prompt)))
    if not asked:
        raise SampleError(f"{protocol.name} asks nothing about the category '{request.category}'")
    return asked


def labels_in(call: Call, text: str) -> tuple[str, ...]:
    """The labels that a prompt asks for its marks under. Raises UserError where they aren't as many as the marks."""
    pattern = call.reply.labels_in_prompt
    if pattern is None:
        return ()
    labels = tuple((match[1] or "").strip() for match in re.finditer(pattern, text, re.M))
    if len(labels) != len(call.marks):
        raise UserError(f"'{KEY}': {', '.join(call.prompt)}: {len(labels)} labels in it, not {len(call.marks)}")
    return labels


def check_prompts(protocol: Protocol, prompts: Mapping[str, str], checkout: Path) -> dict[str, str]:
    """The prompts that the protocol uses. UserError where one isn't there, or has no place for what it must tell: an
    instruction that isn't told is judged all the same."""
    used: dict[str, str] = {}
    tokens: dict[str, list[str]] = {}
    for token, told in protocol.placeholders.items():
        tokens.setdefault(told, []).append(token)
    for call in protocol.calls:
        for category in protocol.categories if OF_CATEGORY in call.prompt else ("",):
            names = [category if name == OF_CATEGORY else name for name in call.prompt]
            used |= {name: named(prompts, name, checkout) for name in names}
            text = "\n".join(used[name] for name in names)
            labels_in(call, text)
            for told in call.tells:
                if not any(token in text for token in tokens[told]):
                    places = " or ".join(tokens[told])
                    raise UserError(f"'{KEY}': {', '.join(names)} has no {places}: the {told} would not be told")
    return used


def encoded(image: Image.Image, how: Images, size: tuple[int, int] | None = None) -> Picture:
    """`size` is what the image is brought to, if anything."""
    shown = flat(image)
    if size is not None and shown.size != size:
        shown = shown.resize(size, Image.Resampling.BICUBIC)
    if how.longest is not None and max(shown.size) > how.longest:
        shown = shown.copy()
        shown.thumbnail((how.longest, how.longest))
    buffer = io.BytesIO()
    options = {"quality": how.quality} if how.format == "jpeg" else {"compress_level": 1}
    shown.save(buffer, how.format, **options)
    return Picture(buffer.getvalue(), how.format, how.detail)


def _text(call: Call, prompts: Mapping[str, str], category: str) -> str:
    names = [category if name == OF_CATEGORY else name for name in call.prompt]
    for name in names:
        if name not in prompts:
            known = {canonical(one): one for one in prompts}
            if canonical(name) not in known:
                raise SampleError(f"the protocol has no prompt for the category '{name}'")
            names[names.index(name)] = known[canonical(name)]
    return "\n".join(prompts[name] for name in names)


def _told(protocol: Protocol, text: str, request: ScoreRequest) -> str:
    """The prompt with the sample's own words in their places, in one pass: what they say is never a place."""
    braces = {"{{": "{", "}}": "}"} if protocol.doubled_braces else {}
    places = sorted([*protocol.placeholders, *braces], key=len, reverse=True)
    if not places:
        return text

    def said(match: re.Match[str]) -> str:
        return braces[match[0]] if match[0] in braces else _value(protocol.placeholders[match[0]], request)

    return re.sub("|".join(map(re.escape, places)), said, text)


def _value(told: str, request: ScoreRequest) -> str:
    value = request.facts.get(told) if told == "frame" else getattr(request, told)
    if value is None or not str(value).strip():
        raise SampleError(f"the sample has no {told}, which the judge must be told")
    return str(value)


def _parts(
    protocol: Protocol, call: Call, text: str, request: ScoreRequest, made: dict[int, Picture]
) -> Iterator[str | Picture]:
    """`made` has what a sample's earlier calls have encoded: its calls show the same images."""
    for what in call.show:
        if what == "text":
            yield text
        elif what == "frames":
            yield from _frames(protocol, request, made)
        else:
            images = {"source": request.sources[:1], "sources": request.sources, "edited": (request.edited,)}
            images["reference"] = (request.reference,) if request.reference is not None else ()
            if not images[what]:
                raise SampleError(f"the sample has no {what} image, which the judge must be shown")
            for number, image in enumerate(images[what], 1):
                caption = protocol.captions.get("source" if what == "sources" else what)
                if caption:
                    yield f"{caption} {number}:" if len(images[what]) > 1 else f"{caption}:"
                yield _picture(protocol, request, image, made)


def _frames(protocol: Protocol, request: ScoreRequest, made: dict[int, Picture]) -> Iterator[str | Picture]:
    """All frames of a scene in their order, the made one in its place."""
    numbers, wanted = request.facts.get("frames"), request.facts.get("frame")
    if not isinstance(numbers, list) or len(numbers) != len(request.sources) or not isinstance(wanted, int):
        raise SampleError("the data don't say which frames the sources and the edit are")
    frames = [(number, "source", image) for number, image in zip(numbers, request.sources, strict=True)]
    for number, what, image in sorted([*frames, (wanted, "edited", request.edited)], key=lambda frame: frame[0]):
        caption = protocol.captions.get(what)
        yield f"Frame {number}, {caption.lower()}:" if caption else f"Frame {number}:"
        yield _picture(protocol, request, image, made)


def _picture(protocol: Protocol, request: ScoreRequest, image: Image.Image, made: dict[int, Picture]) -> Picture:
    if id(image) not in made:
        like_source = protocol.images.like_source and image is request.edited
        made[id(image)] = encoded(image, protocol.images, request.source.size if like_source else None)
    return made[id(image)]
