#!/usr/bin/env bash
# Evaluate in several processes.
# Usage: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [test.py arguments]
# Environment: as tools/dist_train.sh
set -euo pipefail

if [ $# -lt 3 ] || [ "$1" = --help ]; then
  sed -n '2,4s/^# \{0,1\}//p' "$0"
  if [ "${1:-}" = --help ]; then exit 0; else exit 2; fi
fi
DIST_SCRIPT=test.py exec bash "$(dirname "$0")/dist_train.sh" "$@"
