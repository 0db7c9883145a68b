"""Print what a report of a problem needs: versions, devices, and which optional parts are there.

python tools/collect_env.py
"""

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from oneformer3d.engine.cli import ToolParser

PACKAGES = (
    *('oneformer3d', 'torch', 'torchvision', 'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'mmdet3d'),
    *('spconv', 'spconv-cu126', 'open_clip_torch', 'timm', 'lmdb', 'numpy', 'pillow', 'trimesh'),
    *('laspy', 'playwright'),
)
VARIABLES = ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'CUDA_VISIBLE_DEVICES', 'HF_HUB_OFFLINE')


def parse_args() -> argparse.Namespace:
    return ToolParser(description=__doc__).parse_args()


def main() -> None:
    parse_args()
    rows = [*machine(), *(('package ' + name, found(name)) for name in PACKAGES), *devices()]
    rows += [(f'${name}', os.environ[name]) for name in VARIABLES if name in os.environ]

    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f'{name:{width}}  {value}')


def machine() -> list[tuple[str, str]]:
    """Interpreter, system and cores."""
    return [
        ('python', f'{platform.python_version()} ({sys.executable})'),
        ('system', platform.platform()),
        ('cores', str(len(os.sched_getaffinity(0)))),
    ]


def found(name: str) -> str:
    """Version of an installed distribution, a dash where it is absent."""
    try:
        return version(name)
    except PackageNotFoundError:
        return '-'


def devices() -> list[tuple[str, str]]:
    """What PyTorch computes on, and whether mmcv has its compiled ops."""
    import torch

    import oneformer3d  # noqa: F401  (stands in for mmcv's ops where they are absent)

    rows = [('torch CPU', torch.backends.cpu.get_cpu_capability())]
    rows.append(('CUDA of torch', str(torch.version.cuda)))
    for index in range(torch.cuda.device_count()):
        rows.append((f'GPU {index}', torch.cuda.get_device_name(index)))
    ops = find_spec('mmcv._ext')
    compiled = ops is not None and ops.origin is not None  # the stand-in has no file
    return [*rows, ("mmcv's ops", 'compiled' if compiled else 'absent (not needed)')]


if __name__ == '__main__':
    main()
