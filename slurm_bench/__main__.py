"""`python -m slurm_bench …` is `python launch.py …`, from any folder."""

import sys

try:
    from slurm_bench.cli import main
except KeyboardInterrupt:  # it was still being imported, which on a cold file server takes seconds
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
