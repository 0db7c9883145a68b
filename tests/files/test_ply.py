"""PLY files: a round trip, and a peer library reads them."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from oneformer3d.files.ply import read_ply, write_ply

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(50, 3)).astype(np.float32)
COLORS = RNG.integers(0, 256, (50, 3), dtype=np.uint8)


def test_round_trip_and_peer(tmp_path: Path) -> None:
    labels = {
        'semantic': RNG.integers(0, 20, 50),
        'instance': np.arange(50) - 1,
        'score': RNG.random(50).astype(np.float32),
        'seen': RNG.random(50) > 0.5,
    }
    write_ply(tmp_path / 'a.ply', POINTS, COLORS, labels)
    points, colors, read = read_ply(tmp_path / 'a.ply')
    np.testing.assert_array_equal(points, POINTS)
    np.testing.assert_array_equal(colors, COLORS)
    assert set(read) == set(labels)
    for name, values in labels.items():
        np.testing.assert_array_equal(read[name], values)
    peer = trimesh.load(tmp_path / 'a.ply')
    np.testing.assert_array_equal(np.asarray(peer.vertices, np.float32), POINTS)
    np.testing.assert_array_equal(np.asarray(peer.colors)[:, :3], COLORS)


def test_without_colors(tmp_path: Path) -> None:
    write_ply(tmp_path / 'a.ply', POINTS)
    points, colors, labels = read_ply(tmp_path / 'a.ply')
    np.testing.assert_array_equal(points, POINTS)
    assert colors is None
    assert labels == {}


@pytest.mark.parametrize(
    ('colors', 'labels', 'fault'),
    [
        (COLORS[:-1], None, 'expected colors'),
        (COLORS.astype(float), None, 'expected colors'),
        (None, {'a': np.zeros(49)}, 'expected shape'),
        (None, {'x': np.zeros(50)}, 'cannot name'),
        (None, {'two words': np.zeros(50)}, 'cannot name'),
        (None, {'a': np.full(50, 2**40)}, '32 bits'),
        (None, {'a': np.full(50, 'b')}, 'expected numbers'),
    ],
)
def test_bad_input_writes_nothing(tmp_path: Path, colors, labels, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        write_ply(tmp_path / 'a.ply', POINTS, colors, labels)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch) -> None:
    write_ply(tmp_path / 'a.ply', POINTS)
    before = (tmp_path / 'a.ply').read_bytes()

    def fail(self, stream):
        Path(stream).write_bytes(b'half')
        raise OSError('no space left')

    monkeypatch.setattr('plyfile.PlyData.write', fail)
    with pytest.raises(OSError, match='no space'):
        write_ply(tmp_path / 'a.ply', POINTS, COLORS)
    assert (tmp_path / 'a.ply').read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ['a.ply']
