"""Which linear layers of a transformer's blocks may compute in 8 bits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slurm_bench.editors.qwen.profiles import Profile
from slurm_bench.editors.qwen.waiting import OUTLIERS, Waiting
from slurm_bench.errors import UserError

_IN_A_BLOCK = re.compile(r"transformer_blocks\.\d+\.(.*)")


@dataclass(frozen=True)
class Narrowable:
    """`names` are a block's linears by their names there. Those that stand in one tuple of `together` share one matrix
    product or one input in 8 bits, and so are narrow together or not at all. The inputs of `with_outliers` have
    outliers, which are multiplied in bf16 even where the rest is in 8 bits; with `gelu`, they come before GELU.

    Modulation, embedders and what stands behind the blocks never are narrow: they are small and steer everything.
    """

    names: tuple[str, ...]
    together: tuple[tuple[str, ...], ...]
    with_outliers: str
    gelu: bool = False

    def has(self, module_name: str, keep_bf16: Sequence[str] = ()) -> bool:
        """Whether the layer of this name in the transformer computes in 8 bits: if its name ends like none in
        `keep_bf16`, nor that of one that it goes together with."""
        in_block = _IN_A_BLOCK.fullmatch(module_name)
        if in_block is None or in_block[1] not in self.names:
            return False
        parent, _, child = module_name.rpartition(".")
        group = next((names for names in self.together if child in names), (child,))
        return not any(f"{parent}.{name}".endswith(tuple(keep_bf16)) for name in group)

    def check_keep(self, names: Any) -> tuple[str, ...]:
        """Raises UserError for a name in which no linear layer's ends, and which would keep nothing in bf16."""
        if not isinstance(names, list | tuple):
            example = self.with_outliers
            raise UserError(f"'editor.params.keep_bf16': {names!r} is no list; write one, like [{example}]")
        for name in names:
            end = re.sub(r"^(transformer_blocks\.)?\d+\.", "", str(name))
            if not end or not any(linear.endswith(end) for linear in self.names):
                raise UserError(
                    f"'editor.params.keep_bf16': no linear of a block ends in '{name}'; there are "
                    f"{', '.join(self.names)}"
                )
        return tuple(map(str, names))


def narrow(
    transformer: Any, narrowable: Narrowable, profile: Profile, keep_bf16: Sequence[str], device: str, waiting: Waiting
) -> None:
    """Linear layers to 8 bits, in place, one by one on the device, where all stay that aren't to wait: of those that
    wait on the host there is never more than one in 16 bits there."""
    from slurm_bench.kernels.fp8 import Fp8Linear, OutlierLinear, WidenedLinear

    for name in [name for name, _ in transformer.named_modules() if narrowable.has(name, keep_bf16)]:
        parent, _, child = name.rpartition(".")
        linear: Any = transformer.get_submodule(name).to(device)
        if profile.narrow_weights:
            linear = WidenedLinear.of(linear)
        elif name.endswith(narrowable.with_outliers):
            linear = OutlierLinear(linear, gelu=narrowable.gelu)
            if waiting.has(f"{name}.{OUTLIERS}"):
                linear.keep_exact_on_host()
        else:
            linear = Fp8Linear.of(linear)
        if waiting.has(name):
            linear.to("cpu")
        setattr(transformer.get_submodule(parent), child, linear)


def bring(transformer: Any, device: str, waiting: Waiting) -> None:
    """To the device, all but the parts that are to wait."""
    for path, module in transformer.named_modules():
        if waiting.has(path):
            continue
        for name, weight in list(module.named_parameters(recurse=False)):
            setattr(module, name, type(weight)(weight.detach().to(device), weight.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(device))


def forget_outliers(transformer: Any) -> None:
    """Before each sample: which channels are outliers must not depend on the sample before it."""
    from slurm_bench.kernels.fp8 import OutlierLinear

    for module in transformer.modules():
        if isinstance(module, OutlierLinear):
            module.reset()
