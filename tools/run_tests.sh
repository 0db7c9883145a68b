#!/usr/bin/env bash
# Sets up if needed, checks the style and runs the tests.
# Usage: bash tools/run_tests.sh [pytest arguments]
#   without arguments types are checked too, and two processes share the files of tests
#   bash tools/run_tests.sh -m slow      the slow tests
#   bash tools/run_tests.sh -m gpu       the tests that need a CUDA device
set -euo pipefail

cd "$(dirname "$0")/.."
case "${1:-}" in -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
bash tools/setup.sh
export MPLBACKEND=Agg
.venv/bin/ruff format --check .
.venv/bin/ruff check .
command -v chromium google-chrome >/dev/null ||
  echo '[tests] no Chromium here: the tests of pages will skip (apt-get install chromium)'
marker=(-m 'not slow and not gpu')
workers=()
types=
if [ $# = 0 ]; then
  workers=(-n 2 --dist loadfile)
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
  # a minute of one core, beside the tests
  types=$(mktemp)
  trap 'rm -f "$types"' EXIT
  .venv/bin/basedpyright --pythonpath .venv/bin/python >"$types" 2>&1 &
  checker=$!
fi
for argument in "$@"; do if [ "$argument" = -m ]; then marker=(); fi; done
status=0
.venv/bin/python -m pytest "${marker[@]}" "${workers[@]}" --durations=15 "$@" || status=$?
if [ -n "$types" ]; then
  wait "$checker" || status=$?
  tail -n 40 "$types"
fi
exit "$status"
