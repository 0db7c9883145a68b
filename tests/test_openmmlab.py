"""Imports with and without mmcv's compiled ops, in any order, and light until something is used.

Every case is a Python process of its own, because what is imported cannot be taken back.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

BUILD = """
from mmengine.registry import MODELS, DefaultScope
with DefaultScope.overwrite_default_scope('mmdet3d'):
    model = MODELS.build(dict(type='SpConvUNet', num_planes=[8, 16]))
assert type(model).__module__.startswith('oneformer3d.')
"""

COMPILED = pytest.mark.skipif(
    not list(Path(importlib.util.find_spec('mmcv').origin).parent.glob('_ext*')),
    reason='mmcv is installed without its compiled ops',
)


def run(code: str, *paths: Path) -> subprocess.CompletedProcess:
    """Run lines of Python outside the repository, with folders in front of what is installed."""
    search = os.pathsep.join(map(str, [*paths, REPOSITORY]))
    environment = {**os.environ, 'PYTHONPATH': search, 'OMP_NUM_THREADS': '1'}
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        cwd='/',
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope='module')
def without_ops(tmp_path_factory) -> Path:
    """A folder whose mmcv is the installed one without its compiled part."""
    folder = tmp_path_factory.mktemp('lite')
    (folder / 'mmcv').mkdir()
    for path in Path(importlib.util.find_spec('mmcv').origin).parent.iterdir():
        if not path.name.startswith(('_ext', '__pycache__')):
            (folder / 'mmcv' / path.name).symlink_to(path)
    return folder


def test_without_compiled_ops_all_is_there_and_a_call_says_what_is_missing(without_ops):
    code = f"""
import oneformer3d, mmcv, torch
assert mmcv.__file__.startswith({str(without_ops)!r})
{BUILD}
from mmdet3d.structures import DepthInstance3DBoxes
from mmcv.ops import nms
try:
    nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except RuntimeError as error:
    print(error)
"""
    result = run(code, without_ops)
    assert result.returncode == 0, result.stderr[-2000:]
    assert 'nms is not compiled here' in result.stdout
    assert 'tools/setup.sh --ops' in result.stdout
    assert len(result.stdout.splitlines()) == 1


def test_mmdet3d_first_fails_without_ops_as_the_docs_say(without_ops):
    result = run('import mmdet3d.structures, oneformer3d', without_ops)
    assert "No module named 'mmcv._ext'" in result.stderr


@COMPILED
def test_compiled_ops_win_where_they_are():
    code = """
import oneformer3d, torch
from mmcv.ops import nms
boxes = torch.tensor([[0., 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6]])
print(nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)[1].tolist())
"""
    result = run(code)
    assert result.stdout.strip() == '[1, 2]', result.stderr[-2000:]


def test_importing_the_package_imports_nothing_heavy():
    code = """
import sys, oneformer3d
print([name for name in ('torch', 'numpy', 'mmengine', 'mmcv', 'open_clip') if name in sys.modules])
assert 'OneFormer3DInferencer' in dir(oneformer3d)
"""
    result = run(code)
    assert result.stdout.strip() == '[]', result.stderr[-2000:]


@pytest.mark.parametrize(
    'first',
    [
        'import oneformer3d',
        'import oneformer3d, mmdet3d.registry',
        'import mmengine.registry, oneformer3d',
    ],
)
def test_types_are_found_by_name_in_any_order(first):
    result = run(f'{first}\n{BUILD}')
    assert result.returncode == 0, result.stderr[-2000:]


@COMPILED
def test_types_are_found_although_mmdet3d_was_used_before_us():
    code = f"""
from mmdet3d.registry import MODELS
assert MODELS.get('Det3DDataPreprocessor') is not None
assert MODELS.get('SpConvUNet') is None
import oneformer3d
{BUILD}
"""
    result = run(code)
    assert result.returncode == 0, result.stderr[-2000:]


def test_mmdet3d_evaluates_instances_although_numpy_has_no_in1d():
    code = """
import numpy as np
vars(np).pop('in1d', None)
import oneformer3d
from mmdet3d.evaluation.functional.scannet_utils import evaluate_semantic_instance as scannet
ids, classes = np.array([1001, 0, 2001, 3001]), np.array([1, 3])
assert scannet.np.in1d(ids // 1000, classes).tolist() == [True, False, False, True]
"""
    result = run(code)
    assert result.returncode == 0, result.stderr[-2000:]


def test_public_names_come_from_their_rooms_and_others_are_refused():
    code = """
import oneformer3d
assert oneformer3d.OneFormer3D.__module__ == 'oneformer3d.segmentor.oneformer3d'
assert oneformer3d.Inferencer is oneformer3d.OneFormer3DInferencer
try:
    oneformer3d.OneFormer4D
except AttributeError as error:
    print(error)
"""
    result = run(code)
    assert result.stdout.strip() == "module 'oneformer3d' has no attribute 'OneFormer4D'"
