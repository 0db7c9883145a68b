#!/usr/bin/env bash
# The main job from nothing: synthetic rooms, training, evaluation, prediction, report.
# Usage: bash tools/demo.sh [--fresh] [demo.py arguments]
# Results are in work_dirs/demo/, the rooms in data/synthetic/. An interrupted run goes on.
# Threads wait for each other, so beside other programs one is faster: OMP_NUM_THREADS, unless it is
# set, is the number of cores that nothing used in the last minute, at least 1.
set -euo pipefail

cd "$(dirname "$0")/.."
case "${1:-}" in -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
# before the set-up, which is work itself
if [ -z "${OMP_NUM_THREADS:-}" ]; then
  OMP_NUM_THREADS=$(awk -v cores="$(nproc)" \
    '{free = int(cores - $1 + 0.5); print free < 1 ? 1 : free}' /proc/loadavg)
  export OMP_NUM_THREADS
fi

bash tools/setup.sh
exec .venv/bin/python tools/demo.py "$@"
