"""How far a view's feature at a point is to be trusted, and how far the views agree.

Enters: points (N, 3) in metres, cameras, normals, depth maps; or features and class scores (N, V,
C) with weights (N, V). Leaves: numbers in [0, 1], 0 where nothing is known, never not-a-number. N
points, V views, C channels or classes.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .camera import Camera
from .chunks import DEFAULT_BYTE_BUDGET, join, num_rows, ranges
from .inputs import camera_views, check_points, depth_views
from .normals import estimate_normals
from .visibility import Visibility, depth_span, in_frustum, nearest_pixel

DECAY = 10.0
TERMS = ('distance', 'angle', 'incidence', 'border', 'edge')
# Bytes that one (point, view) takes while its terms are worked out.
_BYTES_PER_PAIR = 128


def compute_feature_confidence(
    points: Tensor,
    extrinsics: Tensor,
    normals: Tensor | None = None,
    *,
    terms: Sequence[str] = ('distance', 'angle'),
    intrinsics: Tensor | None = None,
    image_shape: tuple[int, int] | None = None,
    depth: Tensor | None = None,
    decay: float = DECAY,
    border_margin: float = 0.05,
    normal_voxel: float = 0.1,
    visibility: Visibility = Visibility(),
    byte_budget: int = DEFAULT_BYTE_BUDGET,
) -> Tensor:
    """Product of the chosen terms, each in [0, 1]. Visibility is not among them: mask as well.

    - ``distance``: exp(−|p − c| / decay) from the camera centre c.
    - ``angle``: max(0, n · (c − p) / |c − p|), how squarely the surface faces the camera. Normals
      that are estimated here have no side: their absolute cosine counts. Where a normal is zero
      (nothing known) the term is 1.
    - ``incidence``: cosine between the viewing ray and the optical axis, with which an image
      loses light and sharpness; 0 behind the camera.
    - ``border``: rises from 0 at the image's border to 1 at ``border_margin`` of its shorter side.
    - ``edge``: t / max(t, s) for the span s of the depths around the pixel and the tolerance
      t = abs_tol + rel_tol d; 0 where depth is missing.

    Args:
        points: (N, 3) world coordinates in metres; rows that are not finite get 0.
        extrinsics: (4, 4) or (V, 4, 4) camera to world.
        normals: (N, 3) unit, outward; None estimates them if the term is asked for.
        terms: some of ``TERMS``.
        intrinsics: (3, 3) or (V, 3, 3); needed by 'border' and 'edge'.
        image_shape: (H, W); needed by the same.
        depth: (h, w) or (V, h, w) metres; needed by 'edge'.
        decay: metres over which trust falls by e.
        border_margin: share of the image's shorter side.
        normal_voxel: cell in metres of the normals' estimate, see ``estimate_normals``.
        visibility: ``near``, and the tolerance that 'edge' compares with.
        byte_budget: bytes for temporary values.

    Returns:
        (N,), or (V, N) for V views.

    Raises:
        ValueError: unknown terms, a term without what it needs, shapes that do not fit.
    """
    unknown = set(terms) - set(TERMS)
    if unknown or not terms:
        raise ValueError(f'terms must be some of {TERMS}, got {tuple(terms)}')
    if decay <= 0 or border_margin <= 0:
        raise ValueError(f'decay and border_margin must be positive, got {decay}, {border_margin}')
    for term, needs in (
        ('border', {'intrinsics': intrinsics, 'image_shape': image_shape}),
        ('edge', {'intrinsics': intrinsics, 'image_shape': image_shape, 'depth': depth}),
    ):
        missing = [name for name, value in needs.items() if value is None]
        if term in terms and missing:
            raise ValueError(f'the term {term!r} needs {missing}')
    points = check_points(points)
    if intrinsics is None or image_shape is None:
        intrinsics, image_shape = torch.eye(3, device=extrinsics.device), (1, 1)
    camera, single = camera_views(intrinsics, extrinsics, image_shape)
    single = extrinsics.ndim == 2 and single
    camera = camera.to(points.device, points.dtype)
    depth = depth_views(depth, camera.batch_shape[0], single)

    finite = points.isfinite().all(-1)
    points = torch.where(finite[:, None], points, 0.0)
    two_sided = normals is None
    if 'angle' in terms:
        normals = _normals(points, normals, normal_voxel, finite)
    trust = {'edge': _edge_maps(depth, visibility)} if 'edge' in terms else {}

    def piece(begin: int, end: int) -> Tensor:
        part = points[begin:end]
        result = finite[begin:end].to(points.dtype).expand(*camera.batch_shape, -1)
        to_point = part - camera.world_from_cam[:, None, :3, 3]
        distance = torch.linalg.vector_norm(to_point, dim=-1)
        ray = to_point / distance.clamp(min=1e-9)[..., None]
        if 'distance' in terms:
            result = result * torch.exp(-distance / decay)
        if 'angle' in terms:
            result = result * _angle(ray, normals[begin:end], two_sided)
        if 'incidence' in terms:
            axis = F.normalize(camera.world_from_cam[:, None, :3, 2], dim=-1)
            result = result * (ray * axis).sum(-1).clamp(min=0)
        if 'border' in terms or 'edge' in terms:
            result = result * _pixel_terms(
                part, camera, terms, border_margin, visibility.near, trust
            )
        return result

    num_points, num_views = len(points), camera.batch_shape[0]
    size = num_rows(max(1, num_views) * _BYTES_PER_PAIR, byte_budget, points.device)
    pieces = (piece(*limits) for limits in ranges(max(1, num_points), size))
    result = join(pieces, num_points, dim=1)
    return result[0] if single else result


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
    """
    num_classes = scores.shape[dim]
    if num_classes < 1:
        raise ValueError(f'scores must have at least one class, got {tuple(scores.shape)}')
    p = _probabilities(scores, dim, logits)
    if num_classes == 1:
        return p.squeeze(dim)
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
    """
    weights = _view_weights(scores, weights)
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
    """
    weights = _view_weights(features, weights)
    unit = F.normalize(features.to(weights.dtype), dim=-1)
    total = weights.sum(1)
    mean = (unit * weights[..., None]).sum(1) / torch.where(total > 0, total, 1.0)[:, None]
    return torch.linalg.vector_norm(mean, dim=-1).clamp(max=1)


def vote_agreement(scores: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Label with most of the views' votes, and its share of the weight.

    Args:
        scores: (N, V, C) logits or probabilities; each view votes for its highest.
        weights: (N, V) not negative, 0 for views that do not see the point; None is 1.

    Returns:
        Labels (N,) int64, −1 without a view (the smaller label when votes are equal), and their
        share of the votes (N,) in [0, 1].
    """
    weights = _view_weights(scores, weights)
    votes = weights.new_zeros(scores.shape[0], scores.shape[2])
    if scores.shape[1]:
        votes = votes.scatter_add(1, scores.argmax(-1), weights)
    total = weights.sum(1)
    highest, labels = votes.max(1)
    share = highest / torch.where(total > 0, total, 1.0)
    return labels.masked_fill(total <= 0, -1), share


def _normals(points: Tensor, normals: Tensor | None, voxel_size: float, finite: Tensor) -> Tensor:
    if normals is None:
        found = points.new_zeros(points.shape)
        kept = finite.nonzero()[:, 0]
        return found.index_copy(0, kept, estimate_normals(points[kept].detach(), voxel_size))
    if normals.shape != points.shape:
        raise ValueError(f'normals must be {tuple(points.shape)}, got {tuple(normals.shape)}')
    normals = normals.to(points)
    return torch.where(normals.isfinite().all(-1, keepdim=True), normals, 0.0)


def _angle(ray: Tensor, normals: Tensor, two_sided: bool) -> Tensor:
    cosine = -(ray * normals).sum(-1)
    cosine = cosine.abs() if two_sided else cosine.clamp(min=0)
    unknown = (normals == 0).all(-1)
    return torch.where(unknown, 1.0, cosine.clamp(max=1))


def _edge_maps(depth: Tensor, visibility: Visibility) -> Tensor:
    """Trust (V, h, w) in each pixel of the depth maps."""
    tolerance = visibility.tolerance(depth)
    span, present = depth_span(depth)
    return torch.where(present, tolerance / torch.maximum(tolerance, span), 0.0)


def _pixel_terms(
    points: Tensor,
    camera: Camera,
    terms: Sequence[str],
    border_margin: float,
    near: float,
    trust: dict[str, Tensor],
) -> Tensor:
    """Terms that look at the pixel a point falls on: (V, n), 0 outside the frustum."""
    uv, z = camera.project(points)
    u, v = uv.unbind(-1)
    result = in_frustum(u, v, z, camera.image_size, near).to(z.dtype)
    if 'border' in terms:
        height, width = camera.image_size
        inside = torch.minimum(
            torch.minimum(u + 0.5, width - 0.5 - u), torch.minimum(v + 0.5, height - 0.5 - v)
        )
        result = result * (inside / (border_margin * min(height, width))).clamp(0, 1)
    if 'edge' in terms:
        result = result * nearest_pixel(trust['edge'], u, v, camera.image_size)
    return result


def _probabilities(scores: Tensor, dim: int, logits: bool) -> Tensor:
    dtype = torch.promote_types(scores.dtype, torch.float32)
    scores = scores.to(dtype)
    if logits:
        return scores.softmax(dim)
    total = scores.sum(dim, keepdim=True)
    return scores / torch.where(total > 0, total, 1.0)


def _view_weights(values: Tensor, weights: Tensor | None) -> Tensor:
    if values.ndim != 3:
        raise ValueError(f'expected (N, V, C), got {tuple(values.shape)}')
    dtype = torch.promote_types(values.dtype, torch.float32)
    if weights is None:
        return values.new_ones(values.shape[:2], dtype=dtype)
    if weights.shape != values.shape[:2]:
        raise ValueError(f'weights must be {tuple(values.shape[:2])}, got {tuple(weights.shape)}')
    return weights.to(dtype)
