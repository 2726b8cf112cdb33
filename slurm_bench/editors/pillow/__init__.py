"""An editor without a model, for the demo and for rehearsals."""

from slurm_bench.editors.pillow.editor import PillowEditor

__all__ = ["PillowEditor"]
