"""`python -m slurm_bench …` is `python launch.py …`, from any folder."""

import sys

from slurm_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
