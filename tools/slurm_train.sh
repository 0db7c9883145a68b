#!/usr/bin/env bash
# Train on a Slurm cluster.
# Usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [train.py arguments]
# Environment: GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=
set -euo pipefail

if [ $# -lt 4 ] || [ "$1" = --help ]; then
  sed -n '2,4s/^# \{0,1\}//p' "$0"
  if [ "${1:-}" = --help ]; then exit 0; else exit 2; fi
fi
partition=$1
job=$2
config=$3
last=$4
shift 4
# SLURM_SCRIPT: slurm_test.sh runs test.py, whose fourth word is a checkpoint
script=${SLURM_SCRIPT:-train.py}
if [ "$script" = train.py ]; then words=(--work-dir "$last"); else words=("$last"); fi
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-8}
# shellcheck disable=SC2086 # SRUN_ARGS is a list of words
exec srun -p "$partition" --job-name="$job" --gres="gpu:$gpus_per_node" \
  --ntasks="$gpus" --ntasks-per-node="$gpus_per_node" \
  --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  python -u "$(dirname "$0")/$script" "$config" "${words[@]}" --launcher slurm "$@"
