"""What each view shows of each object: one token with a feature and a place.

Enters: cells (V, h, w, D) of the views of a sample and the ``DecoderScene`` they belong to. Leaves:
``ObjectTokens``, and which of them are near which superpoint.

Letters: N points, S superpoints, V views, P visible pairs, T tokens, D channels.

An object of a view is a 2D instance where the views carry masks (``PosedViews.pair_objects``),
and else what the view sees of one superpoint, so that no detector is needed (after the 2D object
queries of SegDINO3D, which a detector makes).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from oneformer3d.lifting.visibility import nearest_pixel
from oneformer3d.structures import DecoderScene


@dataclass(frozen=True)
class ObjectTokens:
    """The objects of all views of a sample.

    Attributes:
        features: (T, D), means over the visible pairs of an object.
        centers: (T, 3) metres, means of the points of these pairs, augmented as the points are.
    """

    features: Tensor
    centers: Tensor

    def __len__(self) -> int:
        """T."""
        return len(self.centers)

    def drop(self, probability: float) -> 'ObjectTokens':
        """Each token left out with a probability."""
        keep = torch.rand(len(self), device=self.centers.device) >= probability
        return ObjectTokens(self.features[keep], self.centers[keep])


def object_tokens(cells: Tensor, scene: DecoderScene, min_pairs: int = 4) -> ObjectTokens:
    """Tokens of a sample with views.

        feature of an object = mean over its pairs of the cell that the pixel of the pair is in

    Args:
        cells: (V, h, w, D) features over the whole images.
        scene: its points, superpoints and views.
        min_pairs: objects that fewer pairs show are left out.

    Returns:
        T tokens in the order of view, then object; T may be 0.
    """
    views = scene.views
    if views is None:
        raise ValueError('object_tokens: the scene has no views')
    pairs = views.pairs
    objects = views.pair_objects
    if objects is None:
        num_superpoints = int(scene.superpoints.max()) + 1
        objects = pairs.view * num_superpoints + scene.superpoints[pairs.point]  # (P,)

    # pairs → objects that enough of them show
    shown = objects >= 0
    pairs, objects = pairs.select(shown), objects[shown]
    _, token, counts = torch.unique(objects, return_inverse=True, return_counts=True)
    enough = counts >= min_pairs
    rank = enough.cumsum(0) - 1  # (T',) new row of the objects that stay
    stays = enough[token]
    pairs, token, counts = pairs.select(stays), rank[token[stays]], counts[enough]

    # Many pairs of an object share a cell: each cell is read once, times the number of them.
    num_cells = cells[..., 0].numel()
    index = torch.arange(num_cells, device=cells.device).view(cells.shape[:3])
    u, v = pairs.uv.unbind(-1)
    cell = nearest_pixel(index, u, v, views.image_size, pairs.view)  # (P,)
    key, times = torch.unique(token * num_cells + cell, return_counts=True)
    read = cells.flatten(0, 2)[key % num_cells] * times[:, None]  # (at most P, D)
    sums = cells.new_zeros(len(counts), cells.shape[-1])
    sums = sums.index_add(0, key // num_cells, read)  # (T, D)

    xyz = scene.points[:, :3].float()
    centers = xyz.new_zeros(len(counts), 3).index_add(0, token, xyz[pairs.point])
    return ObjectTokens(sums / counts[:, None], centers / counts[:, None])


def near_superpoints(tokens: ObjectTokens, scene: DecoderScene, radius: float) -> Tensor:
    """(S, T) bool: tokens whose centre is no farther from the superpoint's than ``radius``.

        |x_s − x_t|₁ ≤ radius

    Args:
        tokens: T tokens.
        scene: its points and superpoints.
        radius: L1 distance in metres.
    """
    xyz, ids = scene.points[:, :3].float(), scene.superpoints
    counts = torch.bincount(ids)  # (S,)
    centers = xyz.new_zeros(len(counts), 3).index_add(0, ids, xyz) / counts[:, None]
    return torch.cdist(centers, tokens.centers, p=1) <= radius
