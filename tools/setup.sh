#!/usr/bin/env bash
# Makes .venv with everything the project needs, or brings it up to date.
# Usage: bash tools/setup.sh [--cuda] [--force]
#   --cuda   also install spconv, the sparse convolution for NVIDIA GPUs
#   --force  install again even if nothing changed
# PYTHON chooses the interpreter (3.11; default python3.11, else python3).
set -euo pipefail

cd "$(dirname "$0")/.."
cuda=0
force=0
for argument in "$@"; do
  case "$argument" in
    --cuda) cuda=1 ;;
    --force) force=1 ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "setup: unknown argument '$argument' (see --help)" >&2; exit 2 ;;
  esac
done
say() { printf '[setup] %s\n' "$*"; }

venv=.venv
stamp=$venv/.installed
# an environment that once got the GPU extra keeps it
if [ -f "$stamp" ] && grep -q '^cuda$' "$stamp"; then cuda=1; fi
requirements=(requirements.txt requirements/openmmlab.txt requirements/dev.txt)
if [ "$cuda" = 1 ]; then requirements+=(requirements/cuda.txt); fi
wanted=$(
  cat "${requirements[@]}" setup.py tools/setup.sh | sha256sum | cut -d' ' -f1
  pwd
  if [ "$cuda" = 1 ]; then echo cuda; fi
)
if [ "$force" = 0 ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
  say "$venv is up to date"
  exit 0
fi

if [ ! -x "$venv/bin/python" ]; then
  python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
  if [ "$version" != 3.11 ]; then
    echo "setup: Python 3.11 is needed, found '${version:-none}'; set PYTHON=/path/to/python3.11" >&2
    exit 1
  fi
  say "making $venv with $python"
  "$python" -m venv "$venv"
fi
rm -f "$stamp"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

say '1/5 PyTorch and the other pinned packages (several GB the first time)'
pip install --quiet -r requirements.txt -r requirements/dev.txt

say '2/5 OpenMMLab packages, without their stale pins (mmcv imports mmengine)'
pip install --quiet --no-deps -r requirements/openmmlab.txt

# mmcv has no wheel on PyPI. The CPU ops are all this package needs, on GPU
# machines too, so the build never depends on an installed CUDA toolkit. Without
# debug information and with little optimisation it takes less than half as long.
build_mmcv() {
  CFLAGS='-g0 -O1' MMCV_WITH_OPS=1 FORCE_CUDA=0 CUDA_VISIBLE_DEVICES='' MAX_JOBS=$(nproc) \
    PATH="$PWD/$venv/bin:$PATH" pip install --quiet --no-build-isolation --no-deps "$@" mmcv==2.1.0
}
mmcv_works() { "$venv/bin/python" -c 'import mmcv.ops, mmcv; assert mmcv.__version__ == "2.1.0"' 2>/dev/null; }
if mmcv_works; then
  say '3/5 mmcv is there'
else
  say '3/5 mmcv with its ops, from source (5 to 15 minutes on two cores, then cached by pip)'
  build_mmcv
  if ! mmcv_works; then
    say 'the cached mmcv wheel has no working ops; building it again'
    build_mmcv --no-cache-dir --force-reinstall
  fi
fi

if [ "$cuda" = 1 ]; then
  say '4/5 spconv for CUDA'
  pip uninstall --quiet --yes spconv cumm  # the CPU build shares its import name
  pip install --quiet -r requirements/cuda.txt
else
  say '4/5 no GPU extra (tools/setup.sh --cuda adds it)'
fi

say '5/5 this package, editable'
pip install --quiet --no-deps --no-build-isolation --editable .
"$venv/bin/python" -c 'import mmcv.ops, mmdet3d, oneformer3d'
printf '%s\n' "$wanted" >"$stamp"
say "done: source $venv/bin/activate"
