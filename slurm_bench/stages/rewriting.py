"""Instructions that a rewriter rewrites before an editor sees them, each asked for once in a run's life.

A text is on disk before it is used, so a task that goes on, or another that takes the sample over, edits by the same
one, whatever the model would say today (law 4). It hangs on the sample, its sources and the rewriter (its `by`) alone:
the repeats of a sample, under several seeds, share one text, so that they tell of the editor's seeds alone.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

from slurm_bench.editors.base import EditRequest
from slurm_bench.errors import SampleError, ServiceDown, UserError
from slurm_bench.logs import hide_secrets, log
from slurm_bench.rewriters.base import Rewritten
from slurm_bench.run.durable import create_once, json_line
from slurm_bench.run.layout import VERSION, RunDir
from slurm_bench.run.plan import Sample
from slurm_bench.run.slices import seed_of
from slurm_bench.stages.stop import Stopped


class RewriteFailed(SampleError):
    """There is no rewritten instruction, so there is no edit: the one that was planned never stands in."""


@dataclass
class Rewriting:
    """Safe to use from the threads that read ahead. The rewriter is loaded when the first text is missing: where all
    are there, nothing is asked, and no network is needed."""

    run: RunDir
    rewriter: Any
    by: str
    base_seed: int
    known: dict[str, dict[str, Any]] = field(default_factory=dict)  # by sample id, for its records
    _loading: threading.Lock = field(default_factory=threading.Lock)
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _loaded: bool = False

    def rewritten(self, sample: Sample, request: EditRequest, source_sha256: str | list[str]) -> EditRequest:
        """The request with the text that the editor gets. Raises RewriteFailed; UserError and ServiceDown, which are no
        sample's fault; OSError."""
        name = sample.data_id
        mark = hashlib.sha256(json.dumps([self.by, request.instruction, source_sha256]).encode()).hexdigest()[:12]
        file = self.run.root / self.run.rewrite(name, mark)
        if not file.exists():
            asked = replace(request, id=name, seed=seed_of(name, self.base_seed))
            row = self._ask(asked) | {"id": name, "source_sha256": source_sha256, "v": VERSION}
            create_once(file, json_line(row))  # who was faster wins: both edit by his text
        try:
            row = json.loads(file.read_bytes())
            text, facts = row["text"], {name: row[name] for name in ("text", "sha256", "by", "model", "info")}
        except (ValueError, TypeError, KeyError) as error:
            raise RewriteFailed(f"{file}: damaged ({error!r}); remove it") from None
        self.known[sample.id] = facts
        return replace(request, instruction=text)

    def close(self) -> None:
        if self._loaded and hasattr(self.rewriter, "close"):
            self.rewriter.close()

    def _ask(self, request: EditRequest) -> dict[str, Any]:
        begin = time.monotonic()
        try:
            self._load()
            if getattr(self.rewriter, "concurrent", False):
                said = self.rewriter.rewrite(request)
            else:
                with self._turn:
                    said = self.rewriter.rewrite(request)
            said = said if isinstance(said, Rewritten) else Rewritten(said)
            if not isinstance(said.text, str) or not said.text.strip():
                raise RewriteFailed(f"the rewriter gave {said.text!r}, no text")
            info = json.loads(hide_secrets(json.dumps(said.info, allow_nan=False)))
        except (UserError, ServiceDown, RewriteFailed, KeyboardInterrupt, Stopped):
            raise
        except BaseException as error:  # a panic in a library written in Rust is no Exception
            raise RewriteFailed(f"the rewriter failed: {type(error).__name__}: {error}") from error
        text = said.text.encode("utf-8", "replace").decode()
        return {
            "instruction": request.instruction,
            "text": text,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "by": self.by,
            "model": self._model(),
            "info": info,
            "seconds": round(time.monotonic() - begin, 4),
            "time": time.time(),
        }

    def _load(self) -> None:
        with self._loading:
            if not self._loaded and hasattr(self.rewriter, "load"):
                log.info("instructions are rewritten by %s", self._model() or type(self.rewriter).__name__)
                self.rewriter.load()
            self._loaded = True

    def _model(self) -> str | None:
        says = self.rewriter.provenance() if hasattr(self.rewriter, "provenance") else {}
        return says.get("model")
