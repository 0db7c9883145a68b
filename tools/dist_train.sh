#!/usr/bin/env bash
# Train in several processes: one per GPU, or per Gloo process where there is no CUDA.
# Usage: bash tools/dist_train.sh CONFIG GPUS [train.py arguments]
# Environment: NNODES=1 NODE_RANK=0 PORT=29500 MASTER_ADDR=127.0.0.1
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
script=${here}/${DIST_SCRIPT:-train.py}
if [ $# -lt 2 ] || [ "$1" = --help ]; then
  sed -n '2,4s/^# \{0,1\}//p' "$0"
  if [ "${1:-}" = --help ]; then exit 0; else exit 2; fi
fi
# test.py takes the checkpoint between the config and the number of processes
config=$1
shift
before=("$config")
if [ "${DIST_SCRIPT:-train.py}" = test.py ]; then before+=("$1"); shift; fi
gpus=$1
shift
python=${PYTHON:-$here/../.venv/bin/python}
if [ ! -x "$python" ]; then python=python; fi
exec "$python" -m torch.distributed.run \
  --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
  --nproc_per_node="$gpus" "$script" "${before[@]}" --launcher pytorch "$@"
