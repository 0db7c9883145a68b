"""tools/fit_field.py and tools/query_field.py: from a room's folder to labelled points."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.clip.text import CANONICAL_PHRASES, encode_text
from oneformer3d.fields.asking.text import query_lerf_with_text
from oneformer3d.fields.fitting.field_file import load_field
from oneformer3d.files.ply import read_ply
from oneformer3d.store import FeatureStoreWriter, StampMismatchError
from oneformer3d.tiny_clip.train import build_tiny_clip, save_tiny_clip
from tests.fields.scene.test_scene import STAMP
from tests.helpers.clip_files import SETTINGS, write_small_clip
from tests.helpers.load_tool import load_tool

QUICK = [
    'steps=3', 'batch_rays=64', 'surface_pixels=64', 'holdout_every=4', 'occupancy_resolution=24',
    'field_options.num_levels=2', 'field_options.log2_hashmap_size=10', 'measure_every=2',
]  # fmt: skip


@pytest.fixture(scope='module')
def room(tiny_rooms):
    return sorted((tiny_rooms / 'posed_images').iterdir())[0]


@pytest.fixture(scope='module')
def fitted(room, tmp_path_factory):
    """Folder of a language field of the room, after three steps, and the CLIP's weights."""
    out = tmp_path_factory.mktemp('field')
    weights = write_small_clip(out / 'clip.pth')
    options = [*QUICK, 'language_scales=[0.5, 1.0]', 'field_options.language_grids=[[4, 8]]']
    load_tool('fit_field').main(
        [
            str(room),
            '--method',
            'lerf',
            '--weights',
            str(weights),
            '--out',
            str(out),
            '--set',
            *options,
            '--baseline',
        ]
    )
    return out, weights


def test_a_room_is_fitted_and_measured(fitted, room):
    out, _ = fitted
    report = json.loads((out / 'report.json').read_text())
    assert report['steps'] == 3
    assert report['method'] == 'lerf'
    assert {'psnr', 'psnr_aligned', 'depth_error', 'miou'} <= set(report['held_out'])
    assert {'miou', 'observed'} <= set(report['points'])
    assert report['nearest_view']['psnr'] > 5


def test_points_and_text_are_answered(fitted, room, tiny_rooms, tmp_path, capsys):
    out, weights = fitted
    points = tiny_rooms / 'points' / f'{room.name}.bin'
    tool = load_tool('query_field')
    tool.main(
        [
            str(out),
            '--points',
            str(points),
            '--text',
            'a chair',
            'lamp',
            '--weights',
            str(weights),
            '--out',
            str(tmp_path),
            '--views',
            '1',
        ]
    )
    num_points = points.stat().st_size // 24
    with np.load(tmp_path / 'points.npz') as found:
        assert found['labels'].shape == (num_points,)
        assert (found['labels'][~found['observed']] == 255).all()
    with np.load(tmp_path / 'text.npz') as found:
        assert found['relevancy_matrix'].shape == (num_points, 2)
        assert found['phrases'].tolist() == ['a chair', 'lamp']
    xyz, colors, columns = read_ply(tmp_path / 'points.ply')
    assert len(xyz) == len(colors) == num_points
    assert {'labels', 'confidence', 'observed'} <= set(columns)
    pictures = {path.name.split('.', 1)[1] for path in tmp_path.glob('*.png')}
    assert pictures == {
        'rgb.png',
        'depth.png',
        'semantics.png',
        'text-a-chair.png',
        'text-lamp.png',
    }
    with Image.open(next(tmp_path.glob('*.rgb.png'))) as image:
        assert image.size == load_field(out)[0].image_size[::-1]  # the photos' own
    assert 'highest relevancy' in capsys.readouterr().out


def test_phrases_are_put_into_the_given_sentences_and_averaged(fitted, tmp_path):
    out, weights = fitted
    words = ['--text', 'chair', 'seat', '--weights', str(weights), '--average']
    load_tool('query_field').main([str(out), *words, '--templates', '{}', '--out', str(tmp_path)])
    with np.load(tmp_path / 'text.npz') as found:
        assert found['phrases'].tolist() == ['chair, seat']
        scores, points = found['relevancy_matrix'], torch.from_numpy(found['points'])

    # the same by hand: the unit mean of the phrases as they are
    clip, field = ClipEncoder('ViT-B-16', weights, mode='clip').clip, load_field(out)[0]
    mean = F.normalize(encode_text(clip, ['chair', 'seat'], ('{}',)).mean(0, keepdim=True))
    negatives = encode_text(clip, CANONICAL_PHRASES, ('{}',))
    expected = query_lerf_with_text(field, points, mean, negatives=negatives)
    np.testing.assert_allclose(scores, expected['relevancy_matrix'], atol=1e-6)


def test_a_field_answers_as_scans_do(fitted, tmp_path, capsys):
    out, weights = fitted
    words = ['--text', 'a chair', 'lamp', '--clip-weights', str(weights), '--out', str(tmp_path)]
    load_tool('query').main([str(out), *words])
    with np.load(tmp_path / 'text.npz') as found:
        assert found['relevancy_matrix'].shape == (len(found['points']), 2)
    assert 'a chair: ' in capsys.readouterr().out

    # the tool for fields takes the same words
    load_tool('query_field').main([str(out), *words[:-1], str(tmp_path / 'again')])
    with np.load(tmp_path / 'text.npz') as one, np.load(tmp_path / 'again/text.npz') as other:
        np.testing.assert_array_equal(one['relevancy_matrix'], other['relevancy_matrix'])


def test_a_head_is_added_to_a_finished_field(fitted, room, tiny_rooms, tmp_path):
    out, _ = fitted
    with FeatureStoreWriter(tmp_path / 'store', STAMP) as writer:
        for number in range(5):
            feat = np.full((3, 2, 2), number, dtype=np.float32)
            writer.put(room.name, f'{number:05d}', {'feat': feat})
    options = [*QUICK, 'field_options.features={num_levels: 2, log2_hashmap_size: 8}']
    store = tmp_path / 'store'
    arguments = [str(room), '--method', 'feature_field', '--store', f'DINO={store}']
    load_tool('fit_field').main(
        [*arguments, '--start', str(out), '--out', str(tmp_path / 'new'), '--set', *options]
    )
    query = ['--points', str(tiny_rooms / 'points' / f'{room.name}.bin'), '--features']
    load_tool('query_field').main([str(tmp_path / 'new'), *query, '--out', str(tmp_path / 'query')])
    with np.load(tmp_path / 'query' / 'features.npz') as found:
        assert found['features'].shape == (len(found['points']), 3)
        assert np.isfinite(found['features']).all()
    new = load_field(tmp_path / 'new')[0]
    assert new.stamps == {'DINO': STAMP}
    assert new.language_stamp.mode == 'clip'  # texts are still answered by the head of language
    before, after = load_field(out)[0].field, new.field
    assert set(after.head_nets) == {*before.head_nets, 'features'}
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name


def test_labels_go_back_to_a_data_root(fitted, room, tiny_rooms, tmp_path):
    out, _ = fitted
    points = tiny_rooms / 'points' / f'{room.name}.bin'
    load_tool('query_field').main(
        [
            str(out),
            '--points',
            str(points),
            '--pseudo_labels',
            str(tmp_path),
            '--min_confidence',
            '0.0',
        ]
    )
    raw = np.fromfile(tmp_path / 'semantic_mask' / f'{room.name}.bin', dtype=np.int64)
    assert len(raw) == points.stat().st_size // 24
    assert 0 <= raw.min() <= raw.max() <= 16


def test_a_fit_goes_on_only_with_the_folder_read_as_before(room, tmp_path):
    fit = load_tool('fit_field').main
    again = [str(room), '--out', str(tmp_path), '--set', *QUICK]
    fit(again)
    fit(again)  # read the same, the finished field is taken
    for option, value, message in (
        ('--depth-scale', '500', r'depth of the first view was \S+, now \S+$'),
        (
            '--intrinsics',
            '100 101 50 40',
            'intrinsics of the first view was .*, now 100 101 50 40$',
        ),
        ('--convention', 'opengl', 'pose of the first view was'),
    ):
        with pytest.raises(ValueError, match=message) as refusal:
            fit([*again, option, value])
        assert '\n' not in str(refusal.value)
    fit([*again, '--depth-scale', '500', '--fresh'])


def test_what_does_not_fit_is_one_line(fitted, room, tmp_path):
    out, _ = fitted
    fit, query = load_tool('fit_field').main, load_tool('query_field').main
    new = ['--out', str(tmp_path / 'new')]
    for arguments, error, message in (
        ([str(tmp_path / 'absent'), *new], FileNotFoundError, 'no such folder'),
        ([str(room), *new, '--set', 'steps'], ValueError, 'NAME=VALUE'),
        ([str(room), *new, '--set', 'stepz=3'], ValueError, 'unknown settings stepz'),
        ([str(room), *new, '--method', 'lerf'], ValueError, 'needs --weights'),
        ([str(room), *new, '--method', 'feature_field'], ValueError, 'needs features'),
        ([str(room), *new, '--store', 'DINOCLIP=x'], ValueError, 'expected a type as CLIP='),
        ([str(room), *new, '--store', 'x', '--store', 'CLIP=y'], ValueError, 'of CLIP already'),
        ([str(room), '--out', str(out), '--set', 'steps=4'], ValueError, 'other settings'),
    ):
        with pytest.raises(error, match=message):
            fit(arguments)
    other, settings = tmp_path / 'other.pth', replace(SETTINGS, seed=5)
    save_tiny_clip(other, build_tiny_clip(settings), settings, {}, {})
    there = ['--out', str(tmp_path / 'query'), '--text', 'chair']
    for arguments, error, message in (
        ([str(tmp_path / 'absent'), *there], FileNotFoundError, 'no such field'),
        ([str(out), *there], ValueError, 'needs --weights'),
        ([str(out), *there, '--weights', str(other)], StampMismatchError, 'learnt from'),
    ):
        with pytest.raises(error, match=message):
            query(arguments)


@pytest.mark.parametrize('tool', ['fit_field', 'query_field'])
def test_help(tool, capsys):
    with pytest.raises(SystemExit) as end:
        load_tool(tool).main(['--help'])
    assert end.value.code == 0
    assert 'usage' in capsys.readouterr().out
