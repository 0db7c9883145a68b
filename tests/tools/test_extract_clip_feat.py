"""tools/extract_clip_feat.py as users run it: one process, several, killed and continued."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from oneformer3d.extraction.settings import make_settings, setting_types
from oneformer3d.files.yaml import read_yaml
from oneformer3d.store import FeatureStore, verify_store
from tests.helpers.clip_files import write_small_clip
from tests.helpers.load_tool import load_tool
from tests.tools.conftest import ENVIRONMENT, REPOSITORY

TOOL = 'tools/extract_clip_feat.py'
KINDS = (('frame_', 'npz'), ('vis_', 'png'))

# The tool, which sends a signal to itself after some frames; two records make a batch.
INTERRUPTED = """
import functools, os, runpy, sys
import oneformer3d.extraction.run as extraction
import oneformer3d.store.writer as writer
writer.BatchCommit = functools.partial(writer.BatchCommit, records=2)
put = writer.FeatureStoreWriter.put
count = 0
def counted(self, *args):
    global count
    new = put(self, *args)
    count += 1
    if count == 3:
        os.kill(os.getpid(), int(os.environ['SIGNAL']))
    return new
writer.FeatureStoreWriter.put = counted
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> str:
    return str(write_small_clip(tmp_path_factory.mktemp('clip') / 'clip.pth'))


@pytest.fixture(scope='module')
def expected(run_tool, tiny_rooms, weights, tmp_path_factory) -> dict[str, int]:
    """Key → checksum of all frames, from one process."""
    out = tmp_path_factory.mktemp('expected')
    run_tool(TOOL, *arguments(tiny_rooms, weights, out))
    return FeatureStore(out).checksums()


def arguments(tiny_rooms: Path, weights: str, out: Path) -> list[str]:
    given = {'data_root': tiny_rooms, 'weights': weights, 'output_dir': out, 'batch_size': 2}
    return [word for name, value in given.items() for word in (f'--{name}', str(value))]


def interrupted(signum: int, command: list[str], **environment: str) -> int:
    """Exit status of the tool, interrupted by a signal after three frames."""
    result = subprocess.run(
        [sys.executable, '-c', INTERRUPTED, TOOL, *command],
        cwd=REPOSITORY,
        env={**os.environ, **ENVIRONMENT, 'SIGNAL': str(int(signum)), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode


def test_the_documented_command(run_tool, tiny_rooms, weights, tmp_path):
    """Data root inferred from the list of scenes; first frames; files and pictures per frame."""
    scenes = tiny_rooms / 'meta_data' / 'synthetic_train_debug.txt'
    command = ['--scenes_file', scenes, '--frames_per_scene', '2', '--output_dir', tmp_path]
    result = run_tool(TOOL, *command, '--vis', '1', '--dtype', 'fp16', '--weights', weights)
    assert 'valid' in result.stdout
    assert 'images/s' in result.stdout
    names = scenes.read_text().split()
    for scene in names:
        files = {path.name for path in (tmp_path / scene).iterdir()}
        assert files == {f'{kind}0000{i}.{end}' for i in '01' for kind, end in KINDS}
        with np.load(tmp_path / scene / 'frame_00000.npz', allow_pickle=False) as content:
            assert content['pts_feat_raw'].dtype == np.float16
    report = json.loads((tmp_path / 'extraction.r0000.json').read_text())
    assert report['num_new'] == 2 * len(names)
    assert set(report['scenes']) == set(names)
    assert verify_store(tmp_path) == []


def test_torchrun_shards_the_frames(run_tool, tiny_rooms, weights, tmp_path, expected):
    prefix = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2')
    run_tool(TOOL, *arguments(tiny_rooms, weights, tmp_path), prefix=prefix)
    assert len(list(tmp_path.glob('features.*.lmdb'))) == 2
    assert FeatureStore(tmp_path).checksums() == expected


def test_a_killed_rank_leaves_a_store_that_goes_on(
    run_tool, tiny_rooms, weights, tmp_path, expected
):
    command = arguments(tiny_rooms, weights, tmp_path)
    status = interrupted(signal.SIGKILL, command, RANK='1', WORLD_SIZE='2')
    assert status == -signal.SIGKILL
    assert verify_store(tmp_path) == []
    part = FeatureStore(tmp_path).checksums()
    assert 0 < len(part) < len(expected)
    result = run_tool(TOOL, *command, '--resume')
    assert f'in the store before   {len(part)}' in result.stdout
    assert FeatureStore(tmp_path).checksums() == expected


def test_sigterm_commits_what_is_done(tiny_rooms, weights, tmp_path):
    status = interrupted(signal.SIGTERM, arguments(tiny_rooms, weights, tmp_path))
    assert status == 128 + signal.SIGTERM
    assert verify_store(tmp_path) == []
    assert len(FeatureStore(tmp_path)) >= 3


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        # the default weights are not on a machine without network: said at once, with the place
        (['--offline'], 'not on this machine and downloads are off: fetch https://huggingface'),
        (['--weights', 'nowhere.pth'], 'nowhere.pth: no such file'),
        (['--scenes_file', 'nowhere.txt'], 'no such file with scenes'),
        (['--config', 'nowhere.yaml'], 'no such config file'),
        (['--frame_select', 'last'], 'frame_select: expected one of'),
    ],
)
def test_faults_are_named(tiny_rooms, tmp_path, monkeypatch, words, message):
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))
    tool = load_tool('extract_clip_feat')
    root = ['--data_root', str(tiny_rooms), '--output_dir', str(tmp_path / 'out')]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        tool.main([*root, *words])
    assert not (tmp_path / 'out').exists()


def test_arguments_win_over_the_config(tmp_path):
    config = tmp_path / 'config.yaml'
    config.write_text('batch_size: 3\nresume: true\nlayers: [1, 2]\n')
    tool = load_tool('extract_clip_feat')
    path, given = tool.parse_args(
        ['--config', str(config), '--resume', '0', '--input-size', '64', '96', '--vis', '--seed=4']
    )
    settings = make_settings(read_yaml(path), {'data_root': 'x', **given})
    assert (settings.batch_size, settings.resume, settings.vis) == (3, False, True)
    assert (settings.layers, settings.input_size, settings.seed) == ([1, 2], [64, 96], 4)

    # the same written as Hydra has it, behind options that would take words
    words = ['--vis', 'layers=[3, 4]', 'dtype=bf16', '--input-size', '64', 'head=null', 'seed=5']
    path, given = tool.parse_args([*words, 'output_dir=7', f'--config={config}'])
    settings = make_settings(read_yaml(path), {'data_root': 'x', **given})
    assert (settings.layers, settings.dtype, settings.input_size) == ([3, 4], 'bf16', 64)
    assert (settings.vis, settings.head, settings.seed) == (True, None, 5)
    assert settings.output_dir == '7'
    assert tool.parse_args(['--offline'])[1] == {'allow_download': False}
    for name in setting_types():
        assert name in tool.parse_args([f'{name}=null'])[1]

    config.write_text('batchsize: 3\n')
    with pytest.raises(ValueError, match='unknown settings batchsize'):
        tool.main(['--config', str(config), '--data_root', 'x'])
    with pytest.raises(ValueError, match='unknown settings batchsize'):
        tool.main(['batchsize=3', 'data_root=x'])
