"""Objects of views as tokens: against loops over pairs, and against a written-out example."""

import torch

from oneformer3d.stm.object_tokens import ObjectTokens, near_superpoints, object_tokens
from oneformer3d.structures import DecoderScene
from tests.helpers.fusion_scenes import scene


def posed(seed: int = 0, **changes) -> tuple[DecoderScene, torch.Tensor]:
    """A scene and cells (V, 4, 5, 6) of its views."""
    points, views, sample = scene(seed)
    views = type(views)(**{**vars(views), **changes})
    cells = torch.randn(views.num_views, 4, 5, 6, generator=torch.Generator().manual_seed(seed))
    return DecoderScene(points, sample.gt_pts_seg.sp_pts_mask, views), cells


def slow_tokens(cells, scene, objects, min_pairs):
    """Pair by pair: {object: (mean cell, mean point)}."""
    pairs, (height, width) = scene.views.pairs, scene.views.image_size
    rows = {}
    for pair in range(len(pairs)):
        if objects[pair] < 0:
            continue
        u, v = (pairs.uv[pair] + 0.5).tolist()
        x = min(max(int(u * cells.shape[2] / width), 0), cells.shape[2] - 1)
        y = min(max(int(v * cells.shape[1] / height), 0), cells.shape[1] - 1)
        row = torch.cat((cells[pairs.view[pair], y, x], scene.points[pairs.point[pair], :3]))
        rows.setdefault(int(objects[pair]), []).append(row)
    kept = [torch.stack(rows[key]) for key in sorted(rows) if len(rows[key]) >= min_pairs]
    return torch.stack([x.mean(0) for x in kept])


def test_tokens_are_means_over_pairs_of_a_superpoint_in_a_view() -> None:
    where, cells = posed()
    pairs = where.views.pairs
    objects = pairs.view * 1000 + where.superpoints[pairs.point]
    for min_pairs in (1, 5):
        expected = slow_tokens(cells, where, objects, min_pairs)
        tokens = object_tokens(cells, where, min_pairs)
        assert 0 < len(tokens) == len(expected)
        torch.testing.assert_close(tokens.features, expected[:, :6], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tokens.centers, expected[:, 6:], rtol=1e-4, atol=1e-5)


def test_masks_of_the_views_come_before_superpoints() -> None:
    where, _ = posed()
    num_pairs = len(where.views.pairs)
    objects = torch.randint(-1, 9, (num_pairs,), generator=torch.Generator().manual_seed(1))
    where, cells = posed(pair_objects=objects)
    expected = slow_tokens(cells, where, objects, 4)
    tokens = object_tokens(cells, where)
    torch.testing.assert_close(tokens.features, expected[:, :6], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tokens.centers, expected[:, 6:], rtol=1e-4, atol=1e-5)

    nothing, cells = posed(pair_objects=torch.full((num_pairs,), -1))
    assert len(object_tokens(cells, nothing)) == 0


def test_gradients_reach_the_cells_that_are_seen() -> None:
    where, cells = posed()
    cells.requires_grad_()
    object_tokens(cells, where).features.sum().backward()
    assert 0 < (cells.grad.abs().sum(-1) > 0).float().mean() <= 1


def test_near_is_measured_along_the_axes() -> None:
    points = torch.tensor([[0.0, 0, 0], [0.2, 0, 0], [1.0, 1, 1]])
    where = DecoderScene(points, torch.tensor([0, 0, 1]))  # centres (0.1, 0, 0) and (1, 1, 1)
    centers = torch.tensor([[0.1, 0.1, 0.1], [0.1, 0.1, 0.11], [1.0, 0.9, 0.95], [5.0, 5, 5]])
    near = near_superpoints(ObjectTokens(torch.zeros(4, 2), centers), where, 0.2001)
    assert near.tolist() == [[True, False, False, False], [False, False, True, False]]
