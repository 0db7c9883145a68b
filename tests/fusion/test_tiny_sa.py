"""TinySA against slow twins: neighbourhoods, attention, and what samples may not see."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from oneformer3d.backbones.neighbourhoods import (
    ball_query,
    find_neighbourhood,
    shuffled_rank,
)
from oneformer3d.fusion.tiny_sa import TinySA2D, TinySAModule, TinySANeck

RADIUS, K, CELL = 0.3, 8, 0.25


def surface(num_points: int, size: float = 1.5, seed: int = 0) -> torch.Tensor:
    """(N, 3) points of a bumpy floor."""
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(num_points, 3, generator=generator) * torch.tensor([size, size, 0.1])
    return xyz + torch.tensor([3.0, -2.0, 0.5])


def slow_ball(xyz: torch.Tensor, centres: torch.Tensor) -> list[list[int]]:
    """Points of each ball in shuffled order, the first K."""
    order = sorted(range(len(xyz)), key=lambda i: (i * 2654435761) % 2**32)
    return [
        [i for i in order if (xyz[i] - centre).square().sum() < RADIUS * RADIUS][:K]
        for centre in centres
    ]


def as_lists(neighbour: torch.Tensor, is_neighbour: torch.Tensor) -> list[list[int]]:
    return [row[keep].tolist() for row, keep in zip(neighbour, is_neighbour)]


class LargestTensor(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, torch.Tensor):
                self.numel = max(self.numel, value.numel())
        return result


@pytest.mark.parametrize('num_points', [1, 60, 400])
def test_ball_query_equals_slow_twin(num_points):
    xyz = surface(num_points) - torch.tensor([3.0, -2.0, 0.5])
    centres = xyz[:: max(1, num_points // 40)] + 0.01
    sample = torch.zeros(num_points, dtype=torch.int64)
    arguments = (xyz, sample, centres, torch.zeros(len(centres), dtype=torch.int64), RADIUS, K)
    expected = slow_ball(xyz, centres)
    assert as_lists(*ball_query(*arguments)) == expected
    assert as_lists(*ball_query(*arguments, byte_budget=1)) == expected
    if num_points > 1:
        assert max(map(len, expected)) == (K if num_points == 400 else max(map(len, expected)))


def test_two_samples_never_meet():
    """Each finds what it finds alone, though they lie in the same place."""
    corner = torch.tensor([3.0, -2.0, 0.5])
    clouds = [surface(150, seed=1) - corner, surface(90, seed=2) - corner]
    sample = torch.arange(2).repeat_interleave(torch.tensor([150, 90]))
    xyz = torch.cat(clouds)
    neighbour, is_neighbour = ball_query(xyz, sample, xyz[::10], sample[::10], RADIUS, K)
    expected = slow_ball(clouds[0], clouds[0][::10])
    expected += [[150 + i for i in row] for row in slow_ball(clouds[1], clouds[1][::10])]
    assert as_lists(neighbour, is_neighbour) == expected


def test_shuffled_rank_is_a_permutation_that_scatters():
    order = torch.argsort(shuffled_rank(torch.arange(4096)))
    assert torch.equal(order.sort().values, torch.arange(4096))
    # The first of any prefix are spread over all numbers: mean of a uniform draw, 3 sigma.
    assert abs(order[:256].float().mean() - 2048) < 3 * 4096 / math.sqrt(12 * 256)


def test_neighbourhood_of_a_room():
    xyz = surface(800)
    hood = find_neighbourhood(xyz, (800,), RADIUS, K, CELL)
    num_centres = len(hood.centres)
    assert hood.neighbour.shape == (num_centres, K)
    assert hood.is_neighbour.any(1).all()
    for centre in range(num_centres):
        members = xyz[hood.centre_of_point == centre]
        torch.testing.assert_close(hood.centres[centre], members.mean(0), atol=1e-5, rtol=0)
        assert (members.amax(0) - members.amin(0)).max() <= CELL + 1e-6

    offset = (xyz[hood.neighbour] - hood.centres[:, None]) / RADIUS
    torch.testing.assert_close(
        hood.offset, offset.masked_fill(~hood.is_neighbour[..., None], 0), atol=1e-5, rtol=0
    )

    torch.testing.assert_close(hood.nearby_weight.sum(1), torch.ones(800))
    distance = torch.cdist(xyz, hood.centres)
    used = hood.nearby_weight > 0
    own = (hood.nearby == hood.centre_of_point[:, None]) & used
    assert (own.sum(1) == 1).all()
    square = distance.gather(1, hood.nearby).square().clamp(min=1e-4)
    expected = torch.where(used, 1 / square, 0.0)
    torch.testing.assert_close(
        hood.nearby_weight, expected / expected.sum(1, keepdim=True), atol=1e-4, rtol=1e-3
    )


def test_layer_equals_slow_twin():
    xyz, channels, heads = surface(120), 8, 2
    hood = find_neighbourhood(xyz, (120,), RADIUS, K, CELL)
    layer = TinySAModule(channels, heads)
    features = torch.randn(120, channels)
    normed = layer.norm(features)

    learnt = []
    for c in range(len(hood.centres)):
        balls = slow_ball(xyz - xyz.amin(0), (hood.centres - xyz.amin(0))[c : c + 1])[0]
        query = layer.query(normed[hood.centre_of_point == c].mean(0))
        key_value = layer.key_value(normed[balls])
        key_value = key_value + layer.position((xyz[balls] - hood.centres[c]) / RADIUS)
        key, value = key_value.chunk(2, dim=1)

        parts = []
        for head in range(heads):
            part = slice(head * 4, head * 4 + 4)
            weights = (key[:, part] @ query[part] / 2).softmax(0)
            parts.append(weights @ value[:, part])
        learnt.append(layer.out(torch.cat(parts)))

    learnt = torch.stack(learnt)
    expected = features + (learnt[hood.nearby] * hood.nearby_weight[..., None]).sum(1)
    torch.testing.assert_close(layer(features, hood), expected, atol=1e-5, rtol=1e-4)


def test_samples_do_not_see_each_other():
    neck = TinySANeck(8, radius=RADIUS, max_neighbours=K, cell_size=CELL)
    clouds = [surface(200, seed=3), surface(130, size=2.5, seed=4), surface(200, seed=5)]
    features = [torch.randn(len(cloud), 8) for cloud in clouds]
    alone = [neck(x, xyz, (len(xyz),)) for x, xyz in zip(features, clouds)]
    # The first and the third lie in the same place and have as many points.
    together = neck(torch.cat(features), torch.cat(clouds), (200, 130, 200))
    for part, expected in zip(together.split((200, 130, 200)), alone):
        torch.testing.assert_close(part, expected, atol=1e-6, rtol=1e-5)
    moved = neck(
        torch.cat((features[0], features[2])), torch.cat((clouds[0], clouds[2])), (200, 200)
    )
    changed = neck(
        torch.cat((features[0], 100 * features[2])), torch.cat((clouds[0], clouds[2])), (200, 200)
    )
    torch.testing.assert_close(moved[:200], changed[:200], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(moved[200:], changed[200:])


def test_same_number_of_points_elsewhere_is_another_neighbourhood():
    neck = TinySANeck(8, radius=RADIUS, max_neighbours=K, cell_size=CELL).eval()
    x = torch.randn(200, 8)
    first = neck(x, surface(200, seed=6), (200,))
    other = neck(x, surface(200, seed=7), (200,))
    again = neck(x, surface(200, seed=6), (200,))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_result_does_not_depend_on_where_the_scene_lies():
    neck = TinySANeck(8, radius=RADIUS, max_neighbours=K, cell_size=CELL)
    x, xyz = torch.randn(200, 8), (surface(200) * 1024).round() / 1024
    torch.testing.assert_close(
        neck(x, xyz, (200,)), neck(x, xyz + torch.tensor([16.0, -8, 4]), (200,))
    )


def test_memory_is_linear_in_points():
    largest = []
    for size, num_points in ((4.0, 6000), (8.0, 24000)):
        with LargestTensor() as watch:
            TinySANeck(8)(torch.zeros(num_points, 8), surface(num_points, size), (num_points,))
        largest.append(watch.numel / num_points)
    assert largest[1] < 1.3 * largest[0]
    assert largest[1] < 100  # a matrix of centres and points would have 700


def test_every_parameter_has_a_gradient():
    neck = TinySANeck(8)
    neck(torch.randn(300, 8), surface(300), (300,)).square().sum().backward()
    for name, parameter in neck.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_empty_cloud():
    assert TinySANeck(8)(torch.zeros(0, 8), torch.zeros(0, 3), ()).shape == (0, 8)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'cell_size': 0.4}, 'too large'),
        ({'radius': 0.0}, 'positive'),
        ({'max_neighbours': 0}, 'positive'),
        ({'num_points': (5,)}, r'expected \(N, 3\)'),
    ],
)
def test_bad_neighbourhoods(settings, message):
    with pytest.raises(ValueError, match=message):
        find_neighbourhood(surface(6), **{'num_points': (6,), **settings})


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match='heads'):
        TinySAModule(6, num_heads=4)
    with pytest.raises(ValueError, match='heads'):
        TinySA2D(8, hidden=6, num_heads=4)


def opened(neck: TinySA2D) -> TinySA2D:
    """As if trained: what attention adds is no longer zero."""
    for layer in neck.layers:
        torch.nn.init.normal_(layer.out.weight)
    return neck


def test_map_attention_adds_nothing_until_it_has_learnt():
    maps = torch.randn(2, 8, 6, 10)
    neck = TinySA2D(8, hidden=8)
    assert torch.equal(neck(maps), maps)
    optimizer = torch.optim.SGD(neck.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        neck(maps).square().sum().backward()
        optimizer.step()
    assert all(parameter.grad.any() for parameter in neck.parameters())
    assert not torch.equal(neck(maps), maps)


@pytest.mark.parametrize('size', [(7, 7), (9, 13), (3, 5)])
def test_map_attention_equals_slow_twin(size):
    neck = opened(TinySA2D(6, num_layers=1, hidden=4, num_heads=1, num_windows=3))
    layer = neck.layers[0]
    maps = torch.randn(1, 6, *size)
    cells = maps[0].flatten(1).T
    normed = layer.norm(cells)
    rows = [range(i * size[0] // 3, -(-(i + 1) * size[0] // 3)) for i in range(3)]
    columns = [range(i * size[1] // 3, -(-(i + 1) * size[1] // 3)) for i in range(3)]
    windows = torch.stack(
        [
            torch.stack([normed[r * size[1] + c] for r in row for c in column]).mean(0)
            for row in rows
            for column in columns
        ]
    )
    key, value = layer.key_value(windows).chunk(2, dim=1)
    attended = (layer.query(normed) @ key.T / 2).softmax(1) @ value
    expected = (cells + layer.out(attended)).T.reshape(1, 6, *size)
    torch.testing.assert_close(neck(maps), expected, atol=1e-5, rtol=1e-4)


def test_maps_do_not_see_each_other():
    neck = opened(TinySA2D(8, hidden=8))
    maps = torch.randn(3, 8, 6, 10)
    torch.testing.assert_close(neck(maps)[1:2], neck(maps[1:2]), atol=1e-6, rtol=1e-5)
    assert neck(maps[:0]).shape == (0, 8, 6, 10)
