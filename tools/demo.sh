#!/usr/bin/env bash
# The main job from nothing: synthetic rooms, training, evaluation, prediction, report.
# Usage: bash tools/demo.sh [--fresh] [demo.py arguments]
# Results are in work_dirs/demo/, the rooms in data/synthetic/. An interrupted run goes on.
set -euo pipefail

cd "$(dirname "$0")/.."
case "${1:-}" in -h | --help) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
bash tools/setup.sh
exec .venv/bin/python tools/demo.py "$@"
