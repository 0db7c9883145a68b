#!/usr/bin/env bash
# Sets up if needed, checks the style and runs the tests.
# Usage: bash tools/run_tests.sh [pytest arguments]
#   bash tools/run_tests.sh -m slow      the slow tests
#   bash tools/run_tests.sh -m gpu       the tests that need a CUDA device
set -euo pipefail

cd "$(dirname "$0")/.."
case "${1:-}" in -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
bash tools/setup.sh
export MPLBACKEND=Agg
.venv/bin/ruff format --check .
.venv/bin/ruff check .
marker=(-m 'not slow and not gpu')
for argument in "$@"; do if [ "$argument" = -m ]; then marker=(); fi; done
exec .venv/bin/python -m pytest "${marker[@]}" --durations=15 "$@"
