"""Sampling against closed forms, ``grid_sample``, plain loops and finite differences."""

import math

import pytest
import torch

from oneformer3d.lifting import PixelPairs, gather_pairs, project_pairs, sample_map
from tests.helpers.lifting_scenes import column_row_maps, make_camera, room_depth, room_points

IMAGE_SIZE = (48, 64)
STRIDES = [(48, 64), (24, 32), (12, 16), (3, 4), (14, 14), (96, 128), (5, 7)]


def _pixels_away_from_borders(map_size, num_pixels=200):
    """Pixels between the outermost cell centres, where bilinear reads have no border."""
    (h, w), (height, width) = map_size, IMAGE_SIZE
    low = torch.tensor([0.5 * width / w - 0.5, 0.5 * height / h - 0.5], dtype=torch.float64)
    high = torch.tensor([width - 1.0, height - 1.0], dtype=torch.float64) - low
    return low + torch.rand(num_pixels, 2, dtype=torch.float64) * (high - low)


def _one_view_pairs(uv: torch.Tensor) -> PixelPairs:
    rows = torch.arange(len(uv))
    return PixelPairs(rows, torch.zeros_like(rows), uv, torch.ones(len(uv), dtype=uv.dtype))


def _random_pairs(num_points=40, num_views=3, num_pairs=100) -> PixelPairs:
    """Sorted pairs, some points many times and some never, pixels up to the image's borders."""
    point = torch.randint(0, num_points, (num_pairs,)).sort().values
    point = torch.where(point % 7 == 3, point + 1, point).sort().values
    view = torch.randint(0, num_views, (num_pairs,))
    size = torch.tensor([IMAGE_SIZE[1], IMAGE_SIZE[0]], dtype=torch.float64)
    uv = torch.rand(num_pairs, 2, dtype=torch.float64) * size - 0.5
    return PixelPairs(point, view, uv, torch.ones(num_pairs, dtype=torch.float64))


@pytest.mark.parametrize('map_size', STRIDES)
def test_a_ramp_reads_its_own_coordinates(map_size):
    """Exact at every stride: the map's cell centres hold their image pixel."""
    ramp = column_row_maps(map_size, IMAGE_SIZE)
    uv = _pixels_away_from_borders(map_size)
    torch.testing.assert_close(sample_map(ramp, uv, IMAGE_SIZE), uv, atol=1e-10, rtol=0)
    gathered, _ = gather_pairs(ramp[None], _one_view_pairs(uv), IMAGE_SIZE, reduce=None)
    torch.testing.assert_close(gathered, uv, atol=1e-10, rtol=0)
    single = sample_map(ramp.float(), uv.float(), IMAGE_SIZE)
    torch.testing.assert_close(single.double(), uv, atol=1e-4, rtol=0)


def test_pixel_centres_read_the_pixels():
    image = torch.randn(3, *IMAGE_SIZE, dtype=torch.float64)
    v, u = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing='ij')
    uv = torch.stack((u, v), -1).reshape(-1, 2).double()
    expected = image.flatten(1).T
    torch.testing.assert_close(sample_map(image, uv, IMAGE_SIZE), expected, atol=1e-11, rtol=0)
    gathered, _ = gather_pairs(image[None], _one_view_pairs(uv), IMAGE_SIZE, reduce=None)
    torch.testing.assert_close(gathered, expected, atol=1e-12, rtol=0)


def test_borders_hold_the_border_value():
    ramp = column_row_maps((3, 4), IMAGE_SIZE)
    uv = torch.tensor([[-0.5, -0.5], [63.499, 47.499], [500.0, -99.0]], dtype=torch.float64)
    expected = torch.tensor([[7.5, 7.5], [55.5, 39.5], [55.5, 7.5]], dtype=torch.float64)
    torch.testing.assert_close(sample_map(ramp, uv, IMAGE_SIZE), expected)
    gathered, _ = gather_pairs(ramp[None], _one_view_pairs(uv), IMAGE_SIZE, reduce=None)
    torch.testing.assert_close(gathered, expected)


@pytest.mark.parametrize('reduce', ['mean', 'sum'])
@pytest.mark.parametrize('weighted', [False, True])
def test_gather_equals_a_loop_over_pairs(reduce, weighted):
    """The slow twin: one pair at a time through ``grid_sample``."""
    pairs = _random_pairs()
    maps = torch.randn(3, 5, 7, 9, dtype=torch.float64)
    weights = torch.rand(len(pairs), dtype=torch.float64) if weighted else None
    features, weight_sum = gather_pairs(maps, pairs, IMAGE_SIZE, weights, 40, reduce)
    expected = torch.zeros(40, 5, dtype=torch.float64)
    total = torch.zeros(40, dtype=torch.float64)
    for row in range(len(pairs)):
        weight = float(weights[row]) if weighted else 1.0
        u, v = pairs.uv[row].tolist()
        grid = torch.tensor([(2 * u + 1) / 64 - 1, (2 * v + 1) / 48 - 1], dtype=torch.float64)
        sample = torch.nn.functional.grid_sample(
            maps[pairs.view[row]][None],
            grid[None, None, None],
            padding_mode='border',
            align_corners=False,
        )[0, :, 0, 0]
        expected[pairs.point[row]] += weight * sample
        total[pairs.point[row]] += weight
    if reduce == 'mean':
        expected[total > 0] /= total[total > 0][:, None]
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(weight_sum, total)
    assert (total == 0).any()
    assert not features[total == 0].any()


def test_gather_equals_the_dense_twin_on_a_scene():
    camera, points = make_camera(4), room_points(500)
    pairs = project_pairs(points, camera, room_depth(camera))
    maps = torch.randn(4, 6, 12, 16, dtype=torch.float64)
    uv, _ = camera.project(points)
    dense = sample_map(maps, uv, camera.image_size)
    visible = torch.zeros(4, 500, dtype=torch.bool)
    visible[pairs.view, pairs.point] = True
    expected = torch.where(visible[..., None], dense, 0).sum(0)
    features, count = gather_pairs(maps, pairs, camera.image_size, None, 500, 'sum')
    torch.testing.assert_close(features, expected)
    assert torch.equal(count, visible.sum(0).double())
    each, ones = gather_pairs(maps, pairs, camera.image_size, reduce=None)
    torch.testing.assert_close(each, dense[pairs.view, pairs.point])
    assert torch.equal(ones, torch.ones(len(pairs), dtype=torch.float64))


@pytest.mark.parametrize('byte_budget', [1, 3000, 40_000])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16])
def test_the_budget_changes_nothing(byte_budget, dtype):
    """Bit for bit, whatever the cut."""
    pairs = _random_pairs(100, 3, 1000)
    maps = torch.randn(3, 24, 7, 9).to(dtype)
    weights = torch.rand(1000)
    for reduce in ('mean', 'sum', None):
        whole = gather_pairs(maps, pairs, IMAGE_SIZE, weights, 100, reduce)
        cut = gather_pairs(maps, pairs, IMAGE_SIZE, weights, 100, reduce, byte_budget)
        assert torch.equal(whole[0], cut[0])
        assert torch.equal(whole[1], cut[1])
    uv = pairs.uv.reshape(1, -1, 2).expand(3, -1, 2)
    assert torch.equal(
        sample_map(maps, uv, IMAGE_SIZE),
        sample_map(maps, uv, IMAGE_SIZE, byte_budget=byte_budget),
    )


def test_the_budget_changes_no_gradient():
    pairs = _random_pairs(100, 3, 1000)
    maps = torch.randn(3, 8, 7, 9, dtype=torch.float64)
    grads = []
    for byte_budget in (10_000, 1 << 28):
        leaf = maps.clone().requires_grad_()
        features, _ = gather_pairs(leaf, pairs, IMAGE_SIZE, None, 100, byte_budget=byte_budget)
        features.pow(2).sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize('channels_last', [False, True])
def test_storage_types(channels_last):
    """Half maps are read as they are and summed in float32; arguments stay as they were."""
    pairs = _random_pairs()
    maps = torch.randn(3, 6, 7, 9).half()
    if channels_last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    before = maps.clone()
    features, weight_sum = gather_pairs(maps, pairs, IMAGE_SIZE, num_points=40)
    assert features.dtype == weight_sum.dtype == torch.float32
    expected, _ = gather_pairs(maps.double(), pairs, IMAGE_SIZE, num_points=40)
    torch.testing.assert_close(features.double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(maps, before)
    assert sample_map(maps[0], pairs.uv, IMAGE_SIZE).dtype == torch.float32


@pytest.mark.parametrize('reduce', ['mean', 'sum', None])
def test_gather_gradients(reduce):
    """In the maps, the pixels and the weights, against finite differences."""
    pairs = _random_pairs(8, 2, 12)
    maps = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    # Away from cell centres, where a bilinear read has no derivative.
    cells = torch.randint(0, 3, (12, 2)) + 0.2 + 0.6 * torch.rand(12, 2, dtype=torch.float64)
    scale = torch.tensor([64 / 5, 48 / 4], dtype=torch.float64)
    uv = ((cells + 0.5) * scale - 0.5).requires_grad_()
    weights = (torch.rand(12, dtype=torch.float64) + 0.5).requires_grad_()

    def gathered(maps, uv, weights):
        moved = PixelPairs(pairs.point, pairs.view, uv, pairs.depth_z)
        return gather_pairs(maps, moved, IMAGE_SIZE, weights, 8, reduce)

    assert torch.autograd.gradcheck(gathered, (maps, uv, weights))


def test_dense_gradients():
    maps = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    cells = torch.randint(0, 3, (2, 6, 2)) + 0.2 + 0.6 * torch.rand(2, 6, 2, dtype=torch.float64)
    uv = ((cells + 0.5) * torch.tensor([64 / 5, 48 / 4]) - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda m, p: sample_map(m, p, IMAGE_SIZE), (maps, uv))


@pytest.mark.parametrize('mode', ['nearest', 'bicubic'])
def test_other_modes_are_exact_at_pixel_centres(mode):
    image = torch.randn(2, *IMAGE_SIZE, dtype=torch.float64)
    uv = torch.tensor([[3.0, 5.0], [40.0, 30.0]], dtype=torch.float64)
    expected = torch.stack((image[:, 5, 3], image[:, 30, 40]))
    torch.testing.assert_close(sample_map(image, uv, IMAGE_SIZE, mode), expected)


def test_zero_padding_is_on_request():
    image = torch.ones(1, *IMAGE_SIZE)
    uv = torch.tensor([[-5.0, 3.0]])
    assert sample_map(image, uv, IMAGE_SIZE).item() == pytest.approx(1.0)
    assert sample_map(image, uv, IMAGE_SIZE, padding_mode='zeros').item() == 0.0


@pytest.mark.parametrize('map_size', [(1, 1), (1, 6), (6, 1), (2, 2)])
def test_tiny_maps(map_size):
    pairs = _random_pairs()
    maps = torch.randn(3, 2, *map_size, dtype=torch.float64)
    each, _ = gather_pairs(maps, pairs, IMAGE_SIZE, reduce=None)
    for view in range(3):
        keep = pairs.view == view
        expected = sample_map(maps[view], pairs.uv[keep], IMAGE_SIZE)
        torch.testing.assert_close(each[keep], expected)


def test_zero_weights_and_unseen_points_are_zero():
    pairs = _random_pairs()
    maps = torch.randn(3, 4, 7, 9)
    features, weight_sum = gather_pairs(maps, pairs, IMAGE_SIZE, torch.zeros(100), 40)
    assert not features.any()
    assert not weight_sum.any()


def test_bad_pixels_make_no_nan():
    uv = torch.tensor([[math.nan, 3.0], [math.inf, 3.0], [3.0, -math.inf], [1e30, -1e30]])
    maps = torch.randn(1, 4, 7, 9)
    assert torch.isfinite(sample_map(maps[0], uv, IMAGE_SIZE)).all()
    gathered, _ = gather_pairs(maps, _one_view_pairs(uv), IMAGE_SIZE, reduce=None)
    assert torch.isfinite(gathered).all()


def test_nothing_to_sample():
    empty = _random_pairs().select(torch.zeros(100, dtype=torch.bool))
    maps = torch.randn(3, 4, 7, 9, requires_grad=True)
    features, weight_sum = gather_pairs(maps, empty, IMAGE_SIZE, num_points=5)
    assert features.shape == (5, 4)
    assert not features.any()
    assert weight_sum.tolist() == [0.0] * 5
    features.sum().backward()  # the graph holds together without a single pair
    assert not maps.grad.any()
    assert gather_pairs(maps, empty, IMAGE_SIZE, num_points=0)[0].shape == (0, 4)
    assert gather_pairs(maps, empty, IMAGE_SIZE, reduce=None)[0].shape == (0, 4)
    assert not gather_pairs(maps[:0], empty, IMAGE_SIZE, num_points=5)[0].any()
    assert sample_map(maps[0], torch.zeros(0, 2), IMAGE_SIZE).shape == (0, 4)
    assert sample_map(maps[:0], torch.zeros(0, 6, 2), IMAGE_SIZE).shape == (0, 6, 4)


def test_wrong_input_is_named():
    pairs = _random_pairs()
    maps = torch.randn(3, 4, 7, 9)
    cases = [
        ('feature_maps: expected', dict(feature_maps=maps[0], num_points=40)),
        ('reduce must be', dict(num_points=40, reduce='max')),
        ('num_points is needed', dict()),
        ('weights: expected', dict(num_points=40, weights=torch.ones(3))),
        ('name view', dict(feature_maps=maps[:2], num_points=40)),
        ('name point', dict(num_points=10)),
        ('byte_budget', dict(num_points=40, byte_budget=0)),
    ]
    for message, change in cases:
        arguments = dict(feature_maps=maps, pairs=pairs, image_size=IMAGE_SIZE) | change
        with pytest.raises(ValueError, match=message):
            gather_pairs(**arguments)
    backwards = pairs.select(torch.arange(99, -1, -1))
    with pytest.raises(ValueError, match='sorted by point'):
        gather_pairs(maps, backwards, IMAGE_SIZE, num_points=40)
    with pytest.raises(ValueError, match='leading dimensions'):
        sample_map(maps, pairs.uv, IMAGE_SIZE)
    with pytest.raises(ValueError, match='image_size'):
        sample_map(maps[0], pairs.uv, (0, 3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_cuda_equals_cpu():
    camera, points = make_camera(4), room_points(500)
    maps = torch.randn(4, 6, 12, 16, dtype=torch.float64)
    results = []
    for device in ('cpu', 'cuda'):
        moved = camera.to(device)
        pairs = project_pairs(points.to(device), moved, room_depth(camera).to(device))
        features, count = gather_pairs(maps.to(device), pairs, IMAGE_SIZE, num_points=500)
        results.append((features.cpu(), count.cpu()))
    torch.testing.assert_close(results[0], results[1])
