"""PointNet++ against slow twins: sampling, balls, interpolation, and the whole network."""

import pytest
import torch

from oneformer3d.backbones.point_sampling import (
    ball_edges,
    farthest_points,
    nearest_three,
    segment_max,
)
from oneformer3d.backbones.pointnet2 import (
    Point3DProcessor,
    PointMLP,
    PointNetFeaturePropagation,
    PointNetSetAbstraction,
)

SMALL = {
    'npoint': (32, 12, 5),
    'radius': (0.3, 0.6, 1.2),
    'nsample': 200,
    'sa_channels': ((8, 8), (8, 12), (12, 16)),
    'fp_channels': ((16, 16), (16, 8), (8, 8)),
    'head_channels': 8,
}


def cloud(num_points: int = 150, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(num_points, 3, generator=generator) * 2 - 1
    return xyz, torch.randn(num_points, 4, generator=generator)


@pytest.fixture(scope='module')
def network() -> Point3DProcessor:
    torch.manual_seed(0)
    return Point3DProcessor(4, 3, **SMALL).eval()


def slow_farthest(xyz: torch.Tensor, count: int) -> list[int]:
    chosen = [int((xyz - xyz.mean(0)).norm(dim=1).argmax())]
    while len(chosen) < count:
        chosen.append(int(torch.cdist(xyz, xyz[chosen]).min(1).values.argmax()))
    return chosen


def test_farthest_points():
    xyz, _ = cloud(60)
    found, counts = farthest_points(xyz, [40, 20], 25)
    assert counts == [25, 20]
    assert found[:25].tolist() == slow_farthest(xyz[:40], 25)
    assert [i - 40 for i in found[25:].tolist()] == slow_farthest(xyz[40:], 20)
    # on a line with unit steps: an end, the other end, the middle
    line = torch.stack((torch.arange(5.0), torch.zeros(5), torch.zeros(5)), dim=1)
    assert farthest_points(line, [5], 3)[0].tolist() == [0, 4, 2]


def test_equal_points_are_no_trouble():
    chosen, counts = farthest_points(torch.zeros(6, 3), [6], 4)
    assert counts == [4]
    assert chosen.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize('nsample', [4, 500])
def test_balls(nsample):
    xyz, _ = cloud(120)
    centres = torch.cat((xyz[[3, 50]], xyz[[70, 110, 119]] + 0.05))
    centre, neighbour = ball_edges(xyz, [60, 60], centres, [2, 3], 0.5, nsample)
    assert (centre.diff() >= 0).all()
    for i, position in enumerate(centres):
        own = range(60) if i < 2 else range(60, 120)
        inside = {j for j in own if (xyz[j] - position).norm() < 0.5}
        found = neighbour[centre == i].tolist()
        assert len(found) == len(set(found)) == min(nsample, len(inside))
        assert set(found) <= inside


def test_three_nearest():
    fine, _ = cloud(50)
    coarse, _ = cloud(20, seed=1)
    index, weight = nearest_three(fine, [30, 20], coarse, [18, 2])
    for i, position in enumerate(fine):
        rows = torch.arange(18) if i < 30 else torch.arange(18, 20)
        distance = (coarse[rows] - position).norm(dim=1)
        nearest = distance.argsort()[:3]
        assert index[i, : len(nearest)].tolist() == rows[nearest].tolist()
        inverse = 1 / distance[nearest]
        torch.testing.assert_close(weight[i, : len(nearest)], inverse / inverse.sum())
        assert (weight[i, len(nearest) :] == 0).all()
    # at a coarse point its own feature is read
    index, weight = nearest_three(coarse, [20], coarse, [20])
    torch.testing.assert_close(weight[:, 0], torch.ones(20), atol=1e-3, rtol=0)
    assert index[:, 0].tolist() == list(range(20))


def test_segment_max():
    rows = torch.tensor([[1.0, -5.0], [0.0, -4.0], [-7.0, 2.0]], requires_grad=True)
    result = segment_max(rows, torch.tensor([0, 0, 1]), 2)
    assert result.tolist() == [[1.0, -4.0], [-7.0, 2.0]]
    result.sum().backward()
    assert rows.grad.tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]


def test_set_abstraction_is_its_formula():
    xyz, features = cloud(80)
    layer = PointNetSetAbstraction(10, 0.5, 100, 7, [6, 5]).eval()
    centres, result, counts = layer(xyz, features, [80])
    assert counts == [10]
    for centre, row in zip(centres, result):
        near = (xyz - centre).norm(dim=1) < 0.5
        rows = torch.cat((features[near], (xyz[near] - centre) / 0.5), dim=1)
        for linear, norm in zip(layer.mlp.linears, layer.mlp.norms):
            rows = torch.relu(norm(linear(rows)))
        torch.testing.assert_close(row, rows.max(0).values, atol=1e-5, rtol=1e-4)


def test_feature_propagation_is_its_formula():
    fine, skip = cloud(30)
    coarse, values = cloud(8, seed=1)
    layer = PointNetFeaturePropagation(8, [5]).eval()
    result = layer(fine, skip, [30], coarse, values, [8])
    for i, position in enumerate(fine):
        distance, nearest = (coarse - position).norm(dim=1).sort()
        weight = 1 / distance[:3]
        carried = (values[nearest[:3]] * (weight / weight.sum())[:, None]).sum(0)
        torch.testing.assert_close(
            result[i], layer.mlp(torch.cat((carried, skip[i]))[None])[0], atol=1e-5, rtol=1e-4
        )


def test_documented_sizes():
    network = Point3DProcessor(256, 20)
    assert [layer.npoint for layer in network.sa] == [1024, 256, 64]
    assert [layer.radius for layer in network.sa] == [0.1, 0.2, 0.4]
    assert {layer.nsample for layer in network.sa} == {32}
    widths = [[x.in_features for x in layer.mlp.linears] for layer in (*network.sa, *network.fp)]
    assert widths == [
        [259, 32, 32],
        [67, 64, 64],
        [131, 128, 128],
        [384, 256],
        [320, 256],
        [384, 128, 128],
    ]
    assert [layer.mlp.linears[-1].out_features for layer in network.fp] == [256, 128, 128]
    assert network.dropout.p == 0.5


def test_order_of_points_does_not_matter(network):
    xyz, features = cloud()
    order = torch.randperm(len(xyz))
    torch.testing.assert_close(
        network(features[order], xyz[order]), network(features, xyz)[order], atol=1e-5, rtol=1e-4
    )


def test_place_does_not_matter(network):
    xyz, features = cloud()
    moved = network(features, xyz + torch.tensor([4.0, -2.0, 8.0]))
    torch.testing.assert_close(moved, network(features, xyz), atol=1e-4, rtol=1e-3)


def test_batch_equals_samples(network):
    first, second = cloud(150), cloud(40, seed=1)
    batch = network(torch.cat((first[1], second[1])), torch.cat((first[0], second[0])), [150, 40])
    single = torch.cat([network(features, xyz) for xyz, features in (first, second)])
    torch.testing.assert_close(batch, single, atol=1e-5, rtol=1e-4)
    table = network(first[1].reshape(3, 50, 4), first[0].reshape(3, 50, 3))
    alone = network(first[1][50:100], first[0][50:100])
    torch.testing.assert_close(table[1], alone, atol=1e-5, rtol=1e-4)


def test_it_learns():
    torch.manual_seed(0)
    network = Point3DProcessor(4, 2, **{**SMALL, 'dropout': 0.0}).train()
    xyz, features = cloud(200)
    labels = (xyz[:, 0] > 0).long()
    features = torch.cat((xyz[:, :1], features[:, 1:]), dim=1)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(network(features, xyz), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize('counts', [[0], [1], [2, 0, 1], []])
@pytest.mark.parametrize('training', [False, True])
def test_hardly_any_points(counts, training):
    network = Point3DProcessor(4, 3, **SMALL).train(training)
    xyz, features = cloud(sum(counts))
    logits = network(features, xyz, counts)
    assert logits.shape == (sum(counts), 3)
    assert torch.isfinite(logits).all()


def test_a_single_row_trains_by_running_statistics():
    layer = PointMLP(3, [4]).train()
    assert torch.isfinite(layer(torch.rand(1, 3))).all()


def test_bad_input(network):
    xyz, features = cloud(10)
    with pytest.raises(ValueError, match=r'features: expected .* N=10, C=4'):
        network(features[:9], xyz)
    with pytest.raises(ValueError, match=r'features: expected .* N=11, C=4'):
        network(features, xyz, [11])
    with pytest.raises(ValueError, match=r'points: expected .* N=10, got'):
        network(features[None], xyz[None, :9])
    with pytest.raises(ValueError, match='points: not all values are finite'):
        network(features, xyz.index_fill(0, torch.tensor([3]), torch.nan))
    with pytest.raises(ValueError, match='features: not all values are finite'):
        network(features.index_fill(0, torch.tensor([3]), torch.inf), xyz)
    with pytest.raises(ValueError, match='differ in length'):
        Point3DProcessor(4, 3, npoint=(4, 2))
    with pytest.raises(ValueError, match='must be positive'):
        PointNetSetAbstraction(4, 0.0, 8, 4, [4])
