"""How far a view's feature at a point is to be trusted, and how far the views agree.

Enters: points (N, 3) in metres, cameras, normals, depth maps; or features and class scores (N, V,
C) with weights (N, V), or of P pairs. Leaves: numbers in [0, 1], 0 where nothing is known, never
not-a-number. N points, V views, C channels or classes, P visible (point, view) pairs.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .camera import Camera
from .chunks import DEFAULT_BYTE_BUDGET, join, num_rows, ranges
from .inputs import check_points, checked_views
from .normals import estimate_normals
from .pairs import PixelPairs
from .shapes import expect_shape
from .visibility import Visibility, depth_span, in_frustum, nearest_pixel

DECAY = 10.0  # metres over which the confidence in a view falls to 1/e
TERMS = ('distance', 'angle', 'incidence', 'border', 'edge')
_PIXEL_TERMS = {
    'border': ('intrinsics', 'image_shape'),
    'edge': ('intrinsics', 'image_shape', 'depth'),
}
# Bytes that one (point, view) takes while its terms are worked out.
_BYTES_PER_PAIR = 128


def compute_feature_confidence(
    points_3d: Tensor,
    camera_extrinsics: Tensor,
    point_normals: Tensor | None = None,
    *,
    terms: Sequence[str] = ('distance', 'angle'),
    # what 'border' and 'edge' look at
    intrinsics: Tensor | None = None,
    image_shape: tuple[int, int] | None = None,
    depth: Tensor | None = None,
    visibility: Visibility = Visibility(),
    # where the terms reach what they say
    decay: float = DECAY,
    border_margin: float = 0.05,
    normal_voxel: float | None = None,
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> Tensor:
    """Product of the chosen terms, each in [0, 1]. Visibility is not among them: mask as well.

    - ``distance``: exp(−|p − c| / decay) from the camera centre c.
    - ``angle``: max(0, n · (c − p) / |c − p|), how squarely the surface faces the camera. Where a
      normal is zero or none is given (nothing known) the term is 1. Normals that are estimated
      here have no side: their absolute cosine counts.
    - ``incidence``: cosine between the viewing ray and the optical axis, with which an image
      loses light and sharpness; 0 behind the camera.
    - ``border``: rises from 0 at the image's border to 1 at ``border_margin`` of its shorter side.
    - ``edge``: t / max(t, s) for the span s of the depths around the pixel and the tolerance
      t = abs_tol + rel_tol d; 0 where depth is missing.

    Args:
        points_3d: (N, 3) world coordinates in metres; rows that are not finite get 0.
        camera_extrinsics: (4, 4) or (V, 4, 4) camera to world.
        point_normals: (N, 3) unit, outward.
        terms: some of ``TERMS``.
        intrinsics: (3, 3) or (V, 3, 3); needed by 'border' and 'edge'.
        image_shape: (H, W); needed by the same.
        depth: (h, w) or (V, h, w) metres; needed by 'edge'.
        visibility: ``near``, and the tolerance that 'edge' compares with.
        decay: metres over which trust falls by e.
        border_margin: share of the image's shorter side.
        normal_voxel: cell in metres for ``estimate_normals``; None estimates no normals.
        byte_budget: bytes for temporary values.

    Returns:
        (N,), or (V, N) for V views.

    Raises:
        ValueError: unknown terms, a term without what it needs, shapes that do not fit, normals
            that are given and to be estimated as well.

    Example:
        >>> points = torch.tensor([[0.0, 0, 1], [0.0, 0, 5]])
        >>> normals = torch.tensor([[0.0, 0, -1], [0.6, 0, -0.8]])  # head-on and aslant
        >>> compute_feature_confidence(points, torch.eye(4), normals)
        tensor([0.9048, 0.4852])
    """
    _check_terms(terms, {'intrinsics': intrinsics, 'image_shape': image_shape, 'depth': depth})
    if decay <= 0 or border_margin <= 0:
        raise ValueError(f'decay and border_margin must be positive, got {decay}, {border_margin}')
    if point_normals is not None and normal_voxel is not None:
        raise ValueError('normal_voxel estimates normals, but point_normals are given')
    points = check_points(points_3d)
    if intrinsics is None or image_shape is None:  # no term looks at pixels
        intrinsics, image_shape = torch.eye(3, device=camera_extrinsics.device), (1, 1)
    views = checked_views(intrinsics, camera_extrinsics, image_shape, depth)
    camera = views.camera.to(points.device, points.dtype)

    finite = points.isfinite().all(-1)
    points = torch.where(finite[:, None], points, 0.0)
    normals = None
    if 'angle' in terms:
        normals = _normals(points, point_normals, normal_voxel, finite)
    edge_trust = None
    if 'edge' in terms and views.depth is not None:
        edge_trust = _edge_trust(views.depth, visibility)

    def chunk(begin: int, end: int) -> Tensor:
        # c − p
        to_camera = camera.world_from_cam[:, None, :3, 3] - points[begin:end]  # (V, n, 3)
        distance = torch.linalg.vector_norm(to_camera, dim=-1)

        trust = finite[begin:end].to(points.dtype).expand(len(views), -1)
        if 'distance' in terms:
            trust = trust * distance_trust(distance, decay)
        if normals is not None:
            two_sided = point_normals is None
            trust = trust * angle_trust(to_camera, distance, normals[begin:end], two_sided)
        if 'incidence' in terms:
            axis = F.normalize(camera.world_from_cam[:, None, :3, 2], dim=-1)
            cosine = -(to_camera * axis).sum(-1) / distance.clamp(min=1e-9)
            trust = trust * cosine.clamp(min=0)
        if 'border' in terms or 'edge' in terms:
            margin = border_margin if 'border' in terms else None
            trust = trust * _pixel_trust(
                points[begin:end], camera, visibility.near, margin, edge_trust
            )
        return trust

    num_points = len(points)
    size = num_rows(max(1, len(views)) * _BYTES_PER_PAIR, byte_budget, points.device)
    chunks = (chunk(*limits) for limits in ranges(max(1, num_points), size))
    confidence = join(chunks, num_points, dim=1)
    return confidence[0] if views.single else confidence


def pair_confidence(
    points: Tensor,
    pairs: PixelPairs,
    world_from_cam: Tensor,
    normals: Tensor | None = None,
    decay: float = DECAY,
    two_sided: bool = False,
) -> Tensor:
    """The 'distance' term of each pair, times its 'angle' term where there are normals.

    Args:
        points: (N, 3) metres.
        pairs: P pairs.
        world_from_cam: (V, 4, 4).
        normals: (N, 3) unit vectors, or None; a zero one is not known and takes nothing away.
        decay: metres.
        two_sided: normals without a side, as ``estimate_normals`` gives them.

    Returns:
        (P,) in [0, 1].
    """
    if decay <= 0:
        raise ValueError(f'decay must be positive, got {decay}')
    to_camera = world_from_cam[pairs.view, :3, 3] - points[pairs.point]  # (P, 3)
    distance = to_camera.norm(dim=1)
    trust = distance_trust(distance, decay)
    if normals is None:
        return trust
    return trust * angle_trust(to_camera, distance, normals[pairs.point], two_sided)


def distance_trust(distance: Tensor, decay: float) -> Tensor:
    """``exp(−distance / decay)``, both in metres."""
    return torch.exp(-distance / decay)


def angle_trust(to_camera: Tensor, distance: Tensor, normals: Tensor, two_sided: bool) -> Tensor:
    """Cosine between normals (..., 3) and the vectors to the camera; 1 where a normal is zero."""
    # cos = n · (c − p) / |c − p|
    cosine = (to_camera * normals).sum(-1) / distance.clamp(min=1e-6)
    cosine = cosine.abs() if two_sided else cosine.clamp(min=0.0)
    return torch.where((normals == 0).all(-1), 1.0, cosine.clamp(max=1.0))


def entropy_confidence(scores: Tensor, dim: int = -1, logits: bool = True) -> Tensor:
    """1 − H(p) / log C: 1 for a certain prediction, 0 for one that knows nothing.

    Args:
        scores: (..., C) logits, or numbers that are not negative and are scaled to add up to 1.
        dim: of the classes.
        logits: which of the two.

    Returns:
        (...) float in [0, 1]; 0 where all numbers are 0, 1 for a single class.

    Raises:
        ValueError: no classes.

    Example:
        >>> scores = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
        >>> entropy_confidence(scores, logits=False)
        tensor([1.0000, 0.5000, 0.0000])
    """
    num_classes = scores.shape[dim]
    if num_classes < 1:
        raise ValueError(f'scores must have at least one class, got {tuple(scores.shape)}')
    p = _probabilities(scores, dim, logits)
    if num_classes == 1:
        return p.squeeze(dim)

    # H = −Σ p log p
    entropy = -torch.xlogy(p, p).sum(dim)
    return ((1 - entropy / math.log(num_classes)) * (p.sum(dim) > 0)).clamp(0, 1)


def fuse_predictions(
    scores: Tensor, weights: Tensor | None = None, logits: bool = True
) -> tuple[Tensor, Tensor]:
    """Mean of the views' class probabilities, certain views counting more.

    A view weighs ``weights`` times its ``entropy_confidence``.

    Args:
        scores: (N, V, C), see ``entropy_confidence``.
        weights: (N, V) not negative, 0 for views that do not see the point; None is 1.
        logits: what ``scores`` are.

    Returns:
        Probabilities (N, C), zeros for points without weight, and the sum of weights (N,).

    Example:
        >>> scores = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])  # a certain view, one that is not
        >>> fuse_predictions(scores, logits=False)
        (tensor([[1., 0.]]), tensor([1.]))
    """
    weights = _view_weights('scores', scores, weights)
    weights = weights * entropy_confidence(scores, -1, logits)
    total = weights.sum(1)
    p = (_probabilities(scores, -1, logits) * weights[..., None]).sum(1)
    return p / torch.where(total > 0, total, 1.0)[:, None], total


def view_agreement(features: Tensor, weights: Tensor | None = None) -> Tensor:
    """Length of the weighted mean of the views' unit features: 1 when all point the same way.

    A single view agrees with itself; the count of views tells how much that is worth.

    Args:
        features: (N, V, C).
        weights: (N, V) not negative, 0 for views that do not see the point; None is 1.

    Returns:
        (N,) in [0, 1], 0 for points without a view.

    Example:
        >>> view_agreement(torch.tensor([[[2.0, 0], [5, 0]], [[1, 0], [0, 3]]]))
        tensor([1.0000, 0.7071])
    """
    weights = _view_weights('features', features, weights)
    num_points, num_views, _ = features.shape
    point = torch.arange(num_points, device=features.device).repeat_interleave(num_views)
    rows = features.to(weights.dtype).flatten(0, 1)  # (N·V, C)
    return pair_agreement(rows, point, num_points, weights.flatten())


def pair_agreement(features: Tensor, point: Tensor, num_points: int, weights: Tensor) -> Tensor:
    """``view_agreement`` of the pairs of each point.

    Args:
        features: (P, C).
        point: (P,) int64 row of the point.
        num_points: N.
        weights: (P,) not negative.

    Returns:
        (N,) in [0, 1], 0 for points without a pair.
    """
    # |Σ w f/|f|| / Σ w
    unit = F.normalize(features, dim=1) * weights[:, None]
    total = weights.new_zeros(num_points).index_add(0, point, weights)
    mean = unit.new_zeros(num_points, unit.shape[1]).index_add(0, point, unit)
    length = torch.linalg.vector_norm(mean, dim=1)
    return (length / torch.where(total > 0, total, 1.0)).clamp(max=1)


def vote_agreement(scores: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Label with most of the views' votes, and its share of the weight.

    Args:
        scores: (N, V, C) logits or probabilities; each view votes for its highest.
        weights: (N, V) not negative, 0 for views that do not see the point; None is 1.

    Returns:
        Labels (N,) int64, −1 without a view (the smaller label when votes are equal), and their
        share of the votes (N,) in [0, 1].

    Example:
        >>> scores = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]]])
        >>> vote_agreement(scores)
        (tensor([1]), tensor([0.7500]))
    """
    weights = _view_weights('scores', scores, weights)
    num_points, num_views, num_classes = scores.shape
    votes = weights.new_zeros(num_points, num_classes)
    if num_views:
        votes = votes.scatter_add(1, scores.argmax(-1), weights)
    total = weights.sum(1)
    highest, labels = votes.max(1)
    share = highest / torch.where(total > 0, total, 1.0)
    return labels.masked_fill(total <= 0, -1), share


def _normals(
    points: Tensor, normals: Tensor | None, voxel_size: float | None, finite: Tensor
) -> Tensor | None:
    """Normals (N, 3), zero where nothing is known; None where nothing is known anywhere."""
    if normals is None:
        if voxel_size is None:
            return None
        estimated = points.new_zeros(points.shape)
        rows = finite.nonzero()[:, 0]
        return estimated.index_copy(0, rows, estimate_normals(points[rows].detach(), voxel_size))

    expect_shape('point_normals', normals, 'N 3', N=len(points))
    normals = normals.to(points)
    return torch.where(normals.isfinite().all(-1, keepdim=True), normals, 0.0)


def _edge_trust(depth: Tensor, visibility: Visibility) -> Tensor:
    """Trust (V, h, w) in each pixel of the depth maps."""
    tolerance = visibility.tolerance(depth)
    span, present = depth_span(depth)
    return torch.where(present, tolerance / torch.maximum(tolerance, span), 0.0)


def _pixel_trust(
    points: Tensor,
    camera: Camera,
    near: float,
    border_margin: float | None,
    edge_trust: Tensor | None,
) -> Tensor:
    """Terms that look at the pixel a point falls on: (V, n), 0 outside the frustum."""
    uv, z = camera.project(points)
    u, v = uv.unbind(-1)
    height, width = camera.image_size
    trust = in_frustum(u, v, z, camera.image_size, near).to(z.dtype)

    if border_margin is not None:
        to_border = torch.minimum(
            torch.minimum(u + 0.5, width - 0.5 - u), torch.minimum(v + 0.5, height - 0.5 - v)
        )
        trust = trust * (to_border / (border_margin * min(height, width))).clamp(0, 1)
    if edge_trust is not None:
        trust = trust * nearest_pixel(edge_trust, u, v, camera.image_size)
    return trust


def _probabilities(scores: Tensor, dim: int, logits: bool) -> Tensor:
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if logits:
        return scores.softmax(dim)
    total = scores.sum(dim, keepdim=True)
    return scores / torch.where(total > 0, total, 1.0)


def _view_weights(name: str, values: Tensor, weights: Tensor | None) -> Tensor:
    num_points, num_views, _ = expect_shape(name, values, 'N V C')
    dtype = torch.promote_types(values.dtype, torch.float32)
    if weights is None:
        return values.new_ones((num_points, num_views), dtype=dtype)
    expect_shape('weights', weights, 'N V', N=num_points, V=num_views)
    return weights.to(dtype)


def _check_terms(terms: Sequence[str], given: dict[str, object]) -> None:
    if not terms or set(terms) - set(TERMS):
        raise ValueError(f'terms must be some of {TERMS}, got {tuple(terms)}')
    for term in set(terms) & set(_PIXEL_TERMS):
        missing = [name for name in _PIXEL_TERMS[term] if given[name] is None]
        if missing:
            raise ValueError(f'the term {term!r} needs {missing}')
