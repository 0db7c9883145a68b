"""One policy in every tool that reads frames: broken ones are left out, counted and named.

Exit 0 with some, 1 above ``--max-lost`` or at the first with ``--strict``, 2 where there is no such
input.
"""

import logging
import os
import shutil
import sys
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

from oneformer3d.engine.cli import USER_ERRORS, run_tool
from tests.helpers.clip_files import write_small_clip
from tests.helpers.load_tool import load_tool
from tests.helpers.rgbd_scenes import render_views, write_seven_scenes

NUM_FRAMES = 10
FIT = 'steps=2 batch_rays=16 coarse_samples=3 fine_samples=3 view_coarse_samples=3'
# tool → the words that read RECORDING or the data root ROOT that was made of it, to OUT
COMMANDS = {
    'create_data': 'posed_rgbd --root RECORDING --out OUT --voxel-size 0.1 --no-progress',
    'infer': 'RECORDING --out OUT --voxel-size 0.2 --device cpu',
    'stream': 'RECORDING --out OUT --device cpu',
    'view': 'RECORDING --without-model --html OUT/page.html --out OUT',
    'fit_field': f'RECORDING --out OUT --device cpu --set {FIT}',
    'doctor': 'RECORDING --max-lost 0.2',
    'extract_clip_feat': '--data-root ROOT --output-dir OUT --weights CLIP',
    'build_uv_index': '--data-root ROOT --output-dir OUT',
}
OF_ROOTS = ('extract_clip_feat', 'build_uv_index')


@pytest.fixture(scope='module')
def places(tmp_path_factory):
    """A recording, a data root made of it, and a CLIP."""
    folder = tmp_path_factory.mktemp('broken')
    write_seven_scenes(folder / 'room', render_views(NUM_FRAMES))
    with pytest.MonkeyPatch.context() as patch:
        words = ['--root', folder / 'room', '--out', folder / 'root', '--voxel-size', '0.1']
        patch.setattr(sys, 'argv', ['create_data.py', 'posed_rgbd', *map(str, words)])
        load_tool('create_data').main()
    write_small_clip(folder / 'clip.pth')
    return folder


def break_frames(places: Path, to: Path, tool: str, count: int) -> dict[str, Path]:
    """Copies with the last half of some images missing: of colour for CLIP, else of depth."""
    for name in ('room', 'root'):
        shutil.copytree(places / name, to / name)
    inside = to / 'root' / 'posed_images' / 'room'
    colors, depths = sorted(inside.glob('*.jpg')), sorted(inside.glob('*.png'))
    broken = colors if tool == 'extract_clip_feat' else depths
    if tool not in OF_ROOTS:
        broken = sorted((to / 'room').glob('*.depth.png'))
    assert len(broken) == NUM_FRAMES
    for path in broken[2 : 2 + count]:
        os.truncate(path, path.stat().st_size // 2)

    return {'RECORDING': to / 'room', 'ROOT': to / 'root', 'OUT': to / 'out'}


def run(monkeypatch, tool: str, words: dict[str, Path], *more: str) -> int:
    """Exit status of a tool in this process, as its last lines make it."""
    command = COMMANDS[tool]
    for name, path in words.items():
        command = command.replace(name, str(path))
    monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *command.split(), *more])
    try:
        run_tool(load_tool(tool).main, errors=(*USER_ERRORS, RuntimeError))
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize('tool', COMMANDS)
def test_broken_frames_are_left_out_counted_and_named(places, tmp_path, monkeypatch, capfd, tool):
    clip, logged = {'CLIP': places / 'clip.pth'}, []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    monkeypatch.setattr(MMLogger.get_current_instance(), 'handlers', [handler])
    some = break_frames(places, tmp_path / 'some', tool, 1) | clip
    assert run(monkeypatch, tool, some) == 0
    said = ''.join([*capfd.readouterr(), *logged])
    assert '000040' in said or '00002' in said  # the third frame's name there, or here
    assert 'left out' in said

    some['OUT'] = tmp_path / 'strict'
    strict = ('--strict', '1') if tool == 'extract_clip_feat' else ('--strict',)
    assert run(monkeypatch, tool, some, *strict) == 1
    assert_one_line(capfd, 'error: ')

    many = break_frames(places, tmp_path / 'many', tool, 3) | clip
    assert run(monkeypatch, tool, many) == 1
    assert_one_line(capfd, '3 of 10 frames are unusable, more than 20 %: ')
    many['OUT'] = tmp_path / 'allowed'
    assert run(monkeypatch, tool, many, '--max-lost', '0.3') == 0

    nowhere = dict.fromkeys(some, tmp_path / 'nowhere') | {'OUT': tmp_path / 'none'}
    assert run(monkeypatch, tool, nowhere) == 2
    assert_one_line(capfd, 'nowhere')


def assert_one_line(capfd, part: str) -> None:
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1
    assert part in lines[0]
