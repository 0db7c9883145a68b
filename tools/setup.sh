#!/usr/bin/env bash
# Makes .venv with everything the project needs, or brings it up to date. No compiler is needed.
# Usage: bash tools/setup.sh [--cuda] [--ops] [--force]
#   --cuda   also install spconv, the sparse convolution for NVIDIA GPUs
#   --ops    also compile mmcv's ops, for other models of mmdet3d; this package calls none of them
#   --force  install again even if nothing changed
# PYTHON chooses the interpreter (3.11; default python3.11, else python3).
set -euo pipefail

cd "$(dirname "$0")/.."
cuda=0
ops=0
force=0
for argument in "$@"; do
  case "$argument" in
    --cuda) cuda=1 ;;
    --ops) ops=1 ;;
    --force) force=1 ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "setup: unknown argument '$argument' (see --help)" >&2; exit 2 ;;
  esac
done
say() { printf '[setup] %s\n' "$*"; }

venv=.venv
stamp=$venv/.installed
# an environment that once got an extra keeps it
if [ -f "$stamp" ] && grep -q '^cuda$' "$stamp"; then cuda=1; fi
if [ -f "$stamp" ] && grep -q '^ops$' "$stamp"; then ops=1; fi
requirements=(
  requirements.txt requirements/openmmlab.txt requirements/mmcv.txt
  requirements/dev.txt requirements/docs.txt
)
if [ "$cuda" = 1 ]; then requirements+=(requirements/cuda.txt); fi
wanted=$(
  cat "${requirements[@]}" setup.py pyproject.toml tools/setup.sh | sha256sum | cut -d' ' -f1
  pwd
  if [ "$cuda" = 1 ]; then echo cuda; fi
  if [ "$ops" = 1 ]; then echo ops; fi
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

say '1/4 PyTorch and the other pinned packages (several GB the first time)'
pip install --quiet -r requirements.txt -r requirements/dev.txt -r requirements/docs.txt
if [ "$cuda" = 1 ]; then
  say '    spconv for CUDA'
  pip uninstall --quiet --yes spconv cumm  # the CPU build shares its import name
  pip install --quiet -r requirements/cuda.txt
fi

say '2/4 OpenMMLab packages, without their stale pins'
pip install --quiet --no-deps -r requirements/openmmlab.txt

# mmcv and mmcv-lite are one package with and without compiled ops, in the same folder.
has_ops() { "$venv/bin/python" -c 'import mmcv._ext' 2>/dev/null; }

# Joined into few files the sources compile in a tenth of the time, because most of it goes into
# reading torch's headers; those that define equal names stay apart. The language is that of the
# newest torch. CPU ops only, so that no CUDA toolkit is needed.
build_ops() {
  local folder sources
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' RETURN
  pip download --quiet --no-build-isolation --no-deps --no-binary :all: --dest "$folder" mmcv==2.1.0
  tar -xzf "$folder"/mmcv-2.1.0.tar.gz -C "$folder"
  sources=$folder/mmcv-2.1.0
  sed -i 's/-std=c++1[47]/-std=c++20/' "$sources/setup.py"
  (
    cd "$sources/mmcv/ops/csrc/pytorch"
    for part in . cpu; do
      for file in "$part"/*.cpp; do
        case "$file" in
          */psamask.cpp | */roi_align.cpp | */roi_align_rotated.cpp | */rotated_feature_align.cpp)
            if [ "$part" = cpu ]; then continue; fi ;;
        esac
        mv "$file" "${file%.cpp}.inl"
        echo "#include \"$(basename "${file%.cpp}.inl")\"" >>"$part/all.txt"
      done
      mv "$part/all.txt" "$part/all_$(basename "$(realpath "$part")").cpp"
    done
  )
  CFLAGS='-g0 -O1' MMCV_WITH_OPS=1 FORCE_CUDA=0 CUDA_VISIBLE_DEVICES='' MAX_JOBS=$(nproc) \
    PATH="$PWD/$venv/bin:$PATH" pip install --quiet --no-build-isolation --no-deps "$sources"
}
if has_ops; then
  say '3/4 mmcv is there, with its ops'
elif [ "$ops" = 1 ]; then
  say '3/4 mmcv with its ops, from source (about a minute on two cores)'
  pip install --quiet -r requirements/ops.txt
  pip uninstall --quiet --yes mmcv-lite mmcv
  build_ops
  has_ops || { echo 'setup: mmcv was built, but its ops cannot be imported' >&2; exit 1; }
else
  say '3/4 mmcv without ops (tools/setup.sh --ops compiles them)'
  pip uninstall --quiet --yes mmcv
  pip install --quiet --no-deps -r requirements/mmcv.txt
fi

say '4/4 this package, editable'
pip install --quiet --no-deps --no-build-isolation --editable .
"$venv/bin/python" -c 'import oneformer3d, mmdet3d.structures'
printf '%s\n' "$wanted" >"$stamp"
say "done: source $venv/bin/activate"
