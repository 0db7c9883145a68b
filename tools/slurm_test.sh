#!/usr/bin/env bash
# Evaluate on a Slurm cluster.
# Usage: bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [test.py arguments]
# Environment: as tools/slurm_train.sh
set -euo pipefail

if [ $# -lt 4 ] || [ "$1" = --help ]; then
  sed -n '2,4s/^# \{0,1\}//p' "$0"
  if [ "${1:-}" = --help ]; then exit 0; else exit 2; fi
fi
SLURM_SCRIPT=test.py exec bash "$(dirname "$0")/slurm_train.sh" "$@"
