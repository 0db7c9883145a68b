"""Features in chunks, as forks of F3RM keep them, become a store."""

import json

import numpy as np
import pytest

from oneformer3d.store import FeatureStore
from oneformer3d.store.chunks import import_chunks, names_of_transforms
from tests.helpers.load_tool import load_tool


def write_chunks(folder, sizes=(3, 2), channels=5):
    maps = np.random.default_rng(0).random((sum(sizes), 2, 3, channels), dtype=np.float32)
    folder.mkdir()
    for number, part in enumerate(np.split(maps, np.cumsum(sizes)[:-1])):
        np.save(folder / f'chunk_{number:04d}.npy', part)
    (folder / 'meta.pt').write_bytes(b'not to be opened')
    return maps


def test_maps_of_all_chunks_are_records(tmp_path):
    maps = write_chunks(tmp_path / 'dino')
    names = list('edcba')
    assert import_chunks(tmp_path / 'dino', tmp_path / 'out', 'room', names, 'dino') == 5
    assert import_chunks(tmp_path / 'dino', tmp_path / 'out', 'room', names, 'dino') == 0
    store = FeatureStore(tmp_path / 'out')
    assert (store.stamp.encoder, store.stamp.channels, store.stamp.grid) == ('dino', 5, (2, 3))
    for name, expected in zip(names, maps, strict=True):
        assert np.array_equal(store.get('room', name)['feat'], expected.transpose(2, 0, 1))


def test_learnt_views_come_first_evenly_spread(tmp_path):
    frames = [{'file_path': f'images/{k:02d}.png'} for k in reversed(range(10))]
    (tmp_path / 'transforms.json').write_text(json.dumps({'frames': frames}))
    names = names_of_transforms(tmp_path / 'transforms.json', 0.5)
    assert names == ['00', '02', '04', '06', '09', '01', '03', '05', '07', '08']
    assert len(names_of_transforms(tmp_path / 'transforms.json')) == 10


def test_the_tool_takes_the_order_of_the_transforms(tmp_path, capsys):
    maps = write_chunks(tmp_path / 'clip')
    frames = [{'file_path': f'./images/frame_{k}.jpg'} for k in range(5)]
    (tmp_path / 'transforms.json').write_text(json.dumps({'frames': frames}))
    words = ['import-chunks', str(tmp_path / 'out'), str(tmp_path / 'clip'), '--scene', 'room']
    words += ['--encoder', 'clip', '--transforms', str(tmp_path / 'transforms.json')]
    load_tool('store').main(words)
    assert '5 new records' in capsys.readouterr().out
    found = FeatureStore(tmp_path / 'out').get('room', 'frame_4')['feat']
    assert np.array_equal(found, maps[4].transpose(2, 0, 1))


def test_what_does_not_fit_is_one_line(tmp_path):
    write_chunks(tmp_path / 'ok')
    with pytest.raises(ValueError, match='5 images, but 2 names'):
        import_chunks(tmp_path / 'ok', tmp_path / 'out', 'room', ['a', 'b'], 'x')
    assert not (tmp_path / 'out').exists()
    with pytest.raises(ValueError, match='holds no chunk'):
        import_chunks(tmp_path, tmp_path / 'out', 'room', [], 'x')
    np.save(tmp_path / 'ok' / 'chunk_0002.npy', np.zeros((1, 9, 9, 5), np.float32))
    with pytest.raises(ValueError, match=r'chunk_0002.*those before \(2, 3, 5\)'):
        import_chunks(tmp_path / 'ok', tmp_path / 'out', 'room', list('abcdef'), 'x')
    np.save(tmp_path / 'ok' / 'chunk_0002.npy', np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r'chunk_0002\.npy: damaged'):
        import_chunks(tmp_path / 'ok', tmp_path / 'out', 'room', list('abcdef'), 'x')
    (tmp_path / 'transforms.json').write_text('[]')
    with pytest.raises(ValueError, match='not a transforms'):
        names_of_transforms(tmp_path / 'transforms.json')
