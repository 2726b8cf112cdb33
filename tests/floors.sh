#!/usr/bin/env bash
# Runs the tests on the lowest versions that setup.cfg allows (`floors`, the default) or on the newest (`newest`), in a
# virtual environment of its own, which is removed afterwards. Needs 8 GB of disk. Further words are handed to pytest,
# instead of the tests of the models and of what reads files.
set -euo pipefail
cd "$(dirname "$0")/.."

which="${1:-floors}"
shift || true
if [ $# -eq 0 ]; then
  set -- tests/test_qwen*.py tests/test_diffusers_editor.py tests/test_judge_*.py tests/test_kernels.py \
    tests/test_bench.py tests/test_data_*.py tests/test_metrics.py tests/test_image_metrics.py tests/test_report.py tests/test_statistics.py tests/test_compare.py tests/test_config.py \
    tests/test_openai_scorer.py tests/test_local.py
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"

case "$which" in
newest) : >"$folder/constraints.txt" ;;
floors)
  "$python" - >"$folder/constraints.txt" <<'PYTHON'
import configparser

config = configparser.ConfigParser()
config.read("setup.cfg")
extras = config["options.extras_require"]
lines = "\n".join([config["options"]["install_requires"], *(extras[name] for name in ("fast", "data", "metrics"))])
print(*(line.replace(">=", "==") for line in lines.splitlines() if ">=" in line), sep="\n")
PYTHON
  ;;
*)
  echo "tests/floors.sh [floors|newest] [words for pytest]" >&2
  exit 2
  ;;
esac

cat "$folder/constraints.txt"
"$python" -m pip install -q --disable-pip-version-check -e ".[test]" -c "$folder/constraints.txt"
"$python" -m pytest -q "$@"
