"""Steps skipped by cache-dit (https://github.com/vipshop/cache-dit): DBCache with TaylorSeer
(https://arxiv.org/abs/2503.06923). That is an approximation, so the skips are counted."""

from __future__ import annotations

import os
from typing import Any

FEWEST_STEPS = 8  # cache-dit's policies have no masks for fewer; of fewer steps none is skipped


class StepCache:
    """Hooks an `ExactTransformer`. In a step that is skipped only the first block runs, and what the others would add
    is extrapolated from earlier steps. A `mask_policy` says beforehand which steps these are; without one, a step is
    skipped if the first block's residual has hardly changed."""

    def __init__(self, transformer: Any, steps: int, guidance: bool, options: dict[str, Any]) -> None:
        os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")  # it logs to stdout, where results go
        import cache_dit

        options = dict(options)
        policy = options.pop("mask_policy")
        if policy is not None:
            compute_all = steps < FEWEST_STEPS
            mask = [1] * steps if compute_all else cache_dit.steps_mask(mask_policy=policy, total_steps=steps)
            options |= {"steps_computation_mask": mask, "steps_computation_policy": "static"}
        calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=options.pop("taylorseer_order"))
        config = cache_dit.DBCacheConfig(num_inference_steps=steps, enable_separate_cfg=guidance, **options)
        self._transformer = transformer
        cache_dit.enable_cache(
            cache_dit.BlockAdapter(
                transformer=transformer,
                blocks=transformer.transformer_blocks,
                blocks_name="transformer_blocks",
                forward_pattern=cache_dit.ForwardPattern.Pattern_1,
                check_forward_pattern=False,
                has_separate_cfg=guidance,
            ),
            cache_config=config,
            calibrator_config=calibrator,
        )

    def reset(self) -> None:
        """Before each sample: none may see the cache of another, even of one that failed half-way."""
        import cache_dit

        cache_dit.refresh_context(self._transformer)

    def skipped(self) -> dict[str, int]:
        """How many of the latest sample's forwards reused the cache, with the prompt and with the negative one."""
        context = self._transformer._context_manager.get_context(self._transformer._context_names[0])
        return {"prompt": len(context.get_cached_steps()), "negative": len(context.get_cfg_cached_steps())}
