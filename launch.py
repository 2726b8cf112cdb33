#!/usr/bin/env python3
"""The door: `python launch.py --partition h100 --gpus 6`. See README.md or `--help`."""

import sys

try:
    from slurm_bench.cli import main
except KeyboardInterrupt:  # it was still being imported, which on a cold file server takes seconds
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
