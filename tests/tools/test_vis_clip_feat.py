"""tools/vis_clip_feat.py, and the colours of features."""

import numpy as np
import pytest
import torch
from PIL import Image

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.clip.text import CANONICAL_PHRASES, pairwise_relevancy
from oneformer3d.extraction.frames import list_frames
from oneformer3d.extraction.pictures import TextRelevancy, draw_scene, lift_features
from oneformer3d.extraction.run import extract_features
from oneformer3d.extraction.settings import make_settings
from oneformer3d.extraction.uv_index import build_scene_index
from oneformer3d.files.ply import read_ply
from oneformer3d.lifting.sampling import sample_map
from oneformer3d.store import FeatureStore
from oneformer3d.visualization.features import (
    PcaColors,
    feature_colors,
    resize_colors,
    similarity_colors,
)
from tests.helpers.clip_files import write_small_clip
from tests.helpers.load_tool import load_tool


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> str:
    return str(write_small_clip(tmp_path_factory.mktemp('clip') / 'clip.pth'))


@pytest.fixture(scope='module')
def frames(tiny_rooms):
    every = list_frames(make_settings({'data_root': str(tiny_rooms), 'frames_per_scene': 2}))
    return every[:2]


@pytest.fixture(scope='module')
def stores(tiny_rooms, weights, tmp_path_factory) -> dict[str, str]:
    """Mode → store with two frames per scene."""
    found = {}
    for mode in ('tokens', 'clip'):
        out = str(tmp_path_factory.mktemp(mode))
        given = {'data_root': str(tiny_rooms), 'weights': weights, 'output_dir': out, 'mode': mode}
        extract_features(make_settings(given, {'frames_per_scene': 2}))
        found[mode] = out
    return found


def test_the_tool_draws_images_and_cloud(tiny_rooms, stores, weights, tmp_path, frames):
    tool = load_tool('vis_clip_feat')
    root = ['--data_root', str(tiny_rooms), '--output_dir', str(tmp_path)]
    text = ['--text', 'a chair', '--weights', weights]
    tool.main([stores['clip'], *root, *text, '--method', 'pca'])
    scene, (first, second) = frames[0].scene, [frame.name for frame in frames]
    ways = ('pca', 'text_a_chair')
    assert {path.name for path in (tmp_path / scene.name).iterdir()} == {
        f'{name}.{way}.{end}'
        for way in ways
        for name, end in ((first, 'png'), (second, 'png'), ('cloud', 'png'), ('cloud', 'ply'))
    }
    height, width = scene.image_size
    assert Image.open(tmp_path / scene.name / f'{first}.pca.png').size == (2 * width, height)
    points, colors, labels = read_ply(tmp_path / scene.name / 'cloud.text_a_chair.ply')
    assert len(points) == scene.points_path.stat().st_size // 24
    seen = labels['num_views'] > 0
    assert 0 < seen.sum() < len(points)
    assert ((labels['text_a_chair'] > 0) == seen).all()
    assert (colors[~seen] == colors[~seen][0]).all()
    # text needs the text space
    with pytest.raises(ValueError, match='extract them with --mode clip'):
        tool.main([stores['tokens'], *root, *text])
    with pytest.raises(ValueError, match='holds no frames of nowhere'):
        tool.main([stores['tokens'], *root, '--scenes', 'nowhere'])


def test_lifting_is_the_mean_of_the_views(stores, frames):
    store = FeatureStore(stores['tokens'])
    maps = torch.stack(
        [torch.from_numpy(store.get(f.scene.name, f.name)['feat']).float() for f in frames]
    )
    index, _ = build_scene_index(frames)
    # frames in another order than the index has them
    lifted, counts = lift_features(maps.flip(0), [f.name for f in frames][::-1], index)
    assert lifted.shape == (index.num_points, maps.shape[1])
    expected = torch.zeros_like(lifted)
    for view in range(2):
        here = index.pairs.view == view
        expected[index.pairs.point[here]] += sample_map(
            maps[view], index.pairs.uv[here], index.image_size
        )
    torch.testing.assert_close(lifted * counts[:, None], expected, rtol=1e-4, atol=1e-4)
    alone, count = lift_features(maps[:1], [frames[0].name], index)
    assert (count <= 1).all()
    assert not alone[count == 0].any()


def test_relevancy_is_that_of_the_text_module(stores, weights):
    encoder = ClipEncoder(weights=weights)
    store = FeatureStore(stores['clip'])
    relevancy = TextRelevancy(encoder, ['chair', 'bed'], store.stamp)
    rows = np.random.default_rng(0).normal(size=(5, 128)).astype(np.float32)
    expected = pairwise_relevancy(
        torch.from_numpy(rows),
        encoder.encode_text(['chair', 'bed']),
        encoder.encode_text(CANONICAL_PHRASES),
    )
    np.testing.assert_allclose(relevancy(rows), expected, atol=1e-6)


def test_another_clip_cannot_ask(stores, weights, tmp_path):
    encoder = ClipEncoder(weights=weights)
    encoder.weights_digest = 'other'
    with pytest.raises(ValueError, match='would be read by'):
        TextRelevancy(encoder, ['chair'], FeatureStore(stores['clip']).stamp)


def test_frames_that_are_not_in_the_store(stores, tiny_rooms, tmp_path):
    frames = list_frames(make_settings({'data_root': str(tiny_rooms)}))[3:5]
    with pytest.raises(ValueError, match='none of its frames'):
        draw_scene(FeatureStore(stores['tokens']), frames, tmp_path)


@pytest.mark.parametrize('method', ['pca', 'tsne'])
def test_clusters_have_colours_of_their_own(method):
    rng = np.random.default_rng(0)
    centres = 10 * rng.normal(size=(3, 16))
    rows = np.repeat(centres, 30, axis=0) + 0.1 * rng.normal(size=(90, 16))
    colors = feature_colors(rows, method).astype(float).reshape(3, 30, 3)
    within = colors.std(axis=1).mean()
    between = np.linalg.norm(colors.mean(1)[:, None] - colors.mean(1)[None], axis=-1)
    assert between[np.triu_indices(3, 1)].min() > 3 * within


def test_pca_axes_are_those_of_svd():
    rows = np.random.default_rng(0).normal(size=(200, 5)) * [5, 4, 3, 0.1, 0.1]
    rows = rows.astype(np.float32)
    axes = PcaColors(rows).axes
    _, _, expected = np.linalg.svd(rows - rows.mean(0))
    np.testing.assert_allclose(np.abs(expected[:3] @ axes), np.eye(3), atol=1e-3)


def test_pca_of_few_channels_and_bad_rows():
    rows = np.array([[1.0], [2.0], [np.nan], [0.0]])
    colors = feature_colors(rows)
    assert colors.shape == (4, 3)
    assert not colors[:, 1:].any()
    with pytest.raises(ValueError, match='no row'):
        feature_colors(np.zeros((3, 4)))


def test_similarity_grows_brighter():
    colors = similarity_colors(np.linspace(0, 1, 9)).astype(int)
    brightness = colors @ [2, 5, 1]
    assert (np.diff(brightness) > 0).all()
    np.testing.assert_array_equal(similarity_colors(np.array([-5, 9])), colors[[0, -1]])


def test_cells_are_blocks_of_the_image():
    colors = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large = resize_colors(colors, (6, 4))
    np.testing.assert_array_equal(large, colors.repeat(3, axis=0).repeat(2, axis=1))
