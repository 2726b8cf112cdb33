#!/usr/bin/env bash
# Installs what the tests need, and runs them, three side by side, as many wait for a cluster or for processes. Any words
# are handed to pytest; `-n 0` runs one after the other.
# Slurm and Chromium come from Debian's packages where this user may install them; else the tests on a cluster, and
# those of the report's page, are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

have_slurm() {
  PATH="$PATH:/usr/sbin:/sbin"
  command -v sbatch && command -v slurmctld && command -v slurmd
}

have_chromium() {
  command -v chromium && command -v chromedriver
}

install() {
  local root=()
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || return 1
    root=(sudo -n)
  fi
  command -v apt-get >/dev/null || return 1
  # RUNLEVEL=1 keeps Debian from starting the daemons: the tests start their own, with their own configuration.
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends "$@"
}

if ! have_slurm >/dev/null; then
  echo "installing Slurm from the distribution's packages"
  install slurmctld slurmd slurm-client </dev/null >/dev/null 2>&1 && have_slurm >/dev/null ||
    echo "Slurm can't be installed here (that needs root, or sudo without a password): its tests will be skipped"
fi

if ! have_chromium >/dev/null; then
  echo "installing Chromium from the distribution's packages"
  install chromium chromium-driver fonts-dejavu-core </dev/null >/dev/null 2>&1 && have_chromium >/dev/null ||
    echo "Chromium can't be installed here: the tests of the report's page in a browser will be skipped"
fi

if [ -n "${VIRTUAL_ENV:-}" ]; then
  python="$VIRTUAL_ENV/bin/python"
else
  [ -x .venv/bin/python ] || python3 -m venv .venv
  python=.venv/bin/python
fi
"$python" -m pip install -q --disable-pip-version-check -e ".[test]"

"$python" -m ruff check .
"$python" -m ruff format --check -q .
"$python" -m mypy slurm_bench launch.py

code=0
"$python" -m pytest -n 3 --dist worksteal "$@" || code=$?
if [ "$code" -eq 1 ]; then
  # Slurm's clocks and a machine that others load may hit one test in thousands: what failed is told above, and runs
  # once more, one after the other. What fails there too fails the suite.
  echo "what failed runs once more, with nothing beside it"
  "$python" -m pytest -n 0 -x --last-failed --last-failed-no-failures none "$@"
elif [ "$code" -eq 3 ]; then
  # pytest's own error: a worker process that went away may take the whole of it along, and what failed isn't known.
  echo "all of it runs once more, in one process"
  "$python" -m pytest -n 0 "$@"
else
  exit "$code"
fi
