#!/usr/bin/env bash
# What only a GPU shows: the same results as on a CPU, half precision, speed and memory.
# Usage: bash tools/check_gpu.sh [FOLDER [CHECK…]]
#   FOLDER        of the logs (work_dirs/check_gpu)
#   CHECK         tests, train, train_amp, clip, fields; by default all
#   PYTHON        the interpreter (.venv/bin/python)
#   PEAK_TFLOPS   of the card in float16, for the share of it (989: H100)
# Needs the GPU extra: bash tools/setup.sh --cuda
set -uo pipefail

case "${1:-}" in -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."
out=${1:-work_dirs/check_gpu}
python=${PYTHON:-.venv/bin/python}
peak=${PEAK_TFLOPS:-989}
wanted=" ${*:2} "
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo '[check] there is no CUDA device' >&2 # the tests would only be skipped
  exit 2
fi
mkdir -p "$out"
failed=()
check() { # NAME COMMAND…
  local name=$1 start=$SECONDS
  shift
  if [[ $wanted =~ [a-z] && $wanted != *" $name "* ]]; then return; fi
  if "$@" >"$out/$name.log" 2>&1; then
    echo "[check] $name: $((SECONDS - start)) s"
  else
    failed+=("$name")
    echo "[check] $name FAILED, see $out/$name.log" >&2
  fi
  tail -n "${lines:-12}" "$out/$name.log"
}

mapfile -t marked < <(grep -rl 'mark\.gpu' tests --include='*.py')
lines=25 check tests "$python" -m pytest -q -m gpu "${marked[@]}"
room=(--device cuda --points 200000 --steps 5 --config configs/oneformer3d_scannet.py)
check train "$python" tools/benchmark.py train "${room[@]}"
check train_amp "$python" tools/benchmark.py train "${room[@]}" --amp
clip=(--device cuda --batch-size 64 --num-images 256 --workers "$(nproc)" --peak-tflops "$peak")
check clip "$python" tools/benchmark.py clip "${clip[@]}" --dtype fp16
check fields "$python" tools/benchmark.py fields --device cuda

if [ ${#failed[@]} -gt 0 ]; then
  echo "[check] failed: ${failed[*]}" >&2
  exit 1
fi
