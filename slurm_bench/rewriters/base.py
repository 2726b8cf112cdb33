"""The contract of a rewriter: any class with `rewrite`. Nothing need be inherited.

class MyRewriter:
    def __init__(self, style="plain"): ...     # `rewriter.params`; light, it also runs on the login node
    def check(self): ...                       # optional, login node: raise UserError if it can't work
    def load(self): ...                        # optional, in an edit task, before the first text that isn't known yet
    def rewrite(self, request): return "…"     # an EditRequest → the text that the editor gets, or a Rewritten;
                                               # what it raises is this sample's error, UserError and ServiceDown no
                                               # sample's: they end the task
    concurrent = True                          # optional: several threads may call `rewrite` at once
    def provenance(self): return {"model": …}  # optional: what decides the text beside the params
    def close(self): ...                       # optional

The text may depend on the request alone. The judge is never told it: an edit is judged by what was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from slurm_bench.editors.base import EditRequest


@dataclass(frozen=True)
class Rewritten:
    """A text with facts for the sample's record (JSON values: tokens, the served model)."""

    text: str
    info: dict[str, Any] = field(default_factory=dict)


class Rewriter(Protocol):
    """What type checkers know of it; all that is optional is above."""

    def rewrite(self, request: EditRequest) -> str | Rewritten: ...
