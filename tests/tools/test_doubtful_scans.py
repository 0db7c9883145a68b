"""--warnings and --strict mean the same in every tool that reads a recording."""

import sys
from pathlib import Path

import pytest

from tests.helpers.load_tool import load_tool
from tests.helpers.rgbd_scenes import render_views, write_seven_scenes

TOOLS = {
    'infer': ('{scan}', '--out', '{out}', '--device', 'cpu'),
    'create_data': ('posed_rgbd', '--root', '{scan}', '--out', '{out}', '--no-progress'),
    'doctor': ('{scan}', '--fix', '{out}'),
    'fit_field': ('{scan}', '--out', '{out}', '--set', 'steps=1'),
    'stream': ('{scan}', '--out', '{out}', '--device', 'cpu'),
    'view': ('{scan}', '--html', '{out}'),
}


@pytest.fixture(scope='module')
def doubtful(tmp_path_factory) -> Path:
    """As downloaded: without intrinsics, for which the usual ones are taken with a warning."""
    folder = write_seven_scenes(tmp_path_factory.mktemp('doubtful') / 'seq', render_views(10))
    (folder / 'camera-intrinsics.txt').unlink()
    return folder


@pytest.fixture(scope='module')
def broken(tmp_path_factory) -> Path:
    """One of ten frames has lost its colour image."""
    folder = write_seven_scenes(tmp_path_factory.mktemp('broken') / 'seq', render_views(10))
    sorted(folder.glob('*.color.*'))[3].unlink()
    return folder


def run(monkeypatch, name: str, scan: Path, out: Path, *options: str) -> None:
    words = [word.format(scan=scan, out=out) for word in TOOLS[name]]
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', *words, *options])
    load_tool(name).main()


@pytest.mark.parametrize('name', TOOLS)
def test_warnings_as_errors(name, doubtful, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='taken are those of 7-Scenes'):
        run(monkeypatch, name, doubtful, tmp_path / 'out', '--warnings', 'error')
    assert not list((tmp_path / 'out').rglob('*')), 'something was written all the same'


@pytest.mark.parametrize('name', TOOLS)
def test_strict_ends_at_the_first_broken_frame(name, broken, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r'seq: 000060: no colour image'):
        run(monkeypatch, name, broken, tmp_path / 'out', '--strict')
    with pytest.raises(ValueError, match='1 of 10 frames are unusable, more than 5 %'):
        run(monkeypatch, name, broken, tmp_path / 'out', '--max-lost', '0.05')
