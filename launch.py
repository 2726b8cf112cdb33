#!/usr/bin/env python3
"""The door: `python launch.py --partition h100 --gpus 6`. See README.md or `--help`."""

import sys

from slurm_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
