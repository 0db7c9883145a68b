"""A scan with images → labels of its points, in one call.

Enters: a point cloud, images and their cameras, a trained ``FeatureLiftingSegmentation``. Leaves:
the cloud with ``labels``, how sure they are and, for points that are requested, where their
features came from. N points, V views.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict, cast

import torch
from torch import Tensor

from oneformer3d.lifting.camera import Camera
from oneformer3d.lifting.depth_render import zbuffer_views
from oneformer3d.lifting.inputs import camera_views, check_points, depth_views
from oneformer3d.lifting.pairs import project_pairs
from oneformer3d.lifting.provenance import Provenance, trace_sources
from oneformer3d.lifting.shapes import size_of
from oneformer3d.lifting.visibility import Visibility
from oneformer3d.structures import PosedViews

from .lift_views import reliable_pairs
from .segmentor import FeatureLiftingSegmentation

OCCLUSION = ('zbuffer', 'none')


class SegmentedScan(TypedDict):
    """What was known of the points, ``pos`` (N, 3) and more, and what the network says of them.

    ``labels`` (N,) int64, ``label_confidence`` and ``view_agreement`` (N,) float32 and, where it
    was asked for, ``sources``; see ``segment_scan``.
    """

    pos: Tensor
    rgb: NotRequired[Tensor]
    labels: Tensor
    label_confidence: Tensor
    view_agreement: Tensor
    sources: NotRequired[Provenance]


@torch.no_grad()
def segment_scan(
    pc_data: Mapping[str, Any],
    images: Sequence[Tensor] | Tensor,
    camera_params: Sequence[tuple[Tensor, Tensor]],
    model: FeatureLiftingSegmentation,
    convention: str = 'opencv',
    depth: Tensor | None = None,
    occlusion: str = 'zbuffer',
    point_size: int = 3,
    trace: Tensor | None = None,
) -> SegmentedScan:
    """Label every point.

    Args:
        pc_data: ``pos`` (N, 3) metres and, for a model that reads colours, ``rgb`` (N, 3) 0–255.
        images: V of (3, H, W), all of one size, uint8 or 0–1. None at all is allowed: the model
            then has the points alone.
        camera_params: V of intrinsics (3, 3) of the images and camera-to-world pose (4, 4).
        model: trained; it is put into evaluation mode for the call.
        convention: axes of the poses, 'opencv' or 'opengl'.
        depth: (V, h, w) metres, to test what a view sees; without, ``occlusion`` decides.
        occlusion: 'zbuffer' hides points behind other points, 'none' tests the frustum alone.
        point_size: odd side in pixels of a point in the z-buffer.
        trace: (n,) int64 rows of points whose sources are wanted.

    Returns:
        A copy of ``pc_data`` with ``labels`` (N,) int64, ``label_confidence`` (N,) float32, the
        probability of the label, ``view_agreement`` (N,) float32, how far the views of a point
        show the same (0 without any), and, with ``trace``, ``sources``, the ``Provenance`` (V, n)
        of these points. Its weights are the confidence that the model gives the views that it
        reads, scaled to a sum of 1; an aggregator that learns may weigh them otherwise.

    Raises:
        ValueError: no ``pos``, no colours where they are needed, images of different sizes or
            with pixels that are not finite, another number of cameras, cameras that cannot
            project, unknown options, rows to trace that are not there or no views to trace.
    """
    if occlusion not in OCCLUSION:
        raise ValueError(f'occlusion must be one of {OCCLUSION}, got {occlusion!r}')
    if 'pos' not in pc_data:
        raise ValueError("pc_data has no 'pos'")
    if len(images) != len(camera_params):
        raise ValueError(f'{len(images)} images but {len(camera_params)} camera_params')

    # points and cameras as the model reads them
    device = next(model.parameters()).device
    xyz = check_points(pc_data['pos']).float().to(device)
    if not bool(torch.isfinite(xyz).all()):
        raise ValueError("pc_data['pos']: not all coordinates are finite")
    points = torch.cat((xyz, _colors(pc_data, model).to(device)), dim=1)
    camera, stacked = _camera(images, camera_params, convention, device)

    # which view sees which point
    views = None
    if camera is not None and stacked is not None:
        depth = depth_views(depth, len(stacked), single=False)
        if depth is None and occlusion == 'zbuffer':
            depth = zbuffer_views(xyz, camera, Visibility(point_size=point_size))
        depth = None if depth is None else depth.to(xyz)
        views = _views(xyz, stacked, camera, depth)
    if trace is not None:
        _check_trace(trace, len(xyz), views)

    training = model.training
    model.eval()
    try:
        (logits,), agreement = model.logits_and_agreement({'points': [points], 'views': [views]})
    finally:
        model.train(training)

    if len(points) == 0:
        confidence, labels = xyz.new_zeros(0), torch.zeros(0, dtype=torch.int64, device=device)
    else:
        confidence, labels = logits.softmax(1).max(1)  # (N,) both
    result = cast(SegmentedScan, dict(pc_data))  # with whatever else the caller keeps there
    result['labels'] = labels
    result['label_confidence'] = confidence
    result['view_agreement'] = xyz.new_zeros(len(xyz)) if agreement is None else agreement[0]
    if trace is not None and views is not None and camera is not None:
        result['sources'] = _sources(xyz, trace.to(device), views, camera, depth, model)
    return result


def _colors(pc_data: Mapping[str, Any], model: FeatureLiftingSegmentation) -> Tensor:
    """(N, 3) as the data pipeline normalises them; zeros for a model that does not read them."""
    xyz = pc_data['pos']
    if 'color' not in model.point_inputs:
        return torch.zeros(len(xyz), 3)
    rgb = pc_data.get('rgb')
    if rgb is None or tuple(rgb.shape) != (len(xyz), 3):
        got = 'none' if rgb is None else f'{tuple(rgb.shape)}'
        raise ValueError(f"the model reads colours: expected 'rgb' ({len(xyz)}, 3), got {got}")
    return (rgb.float() - 127.5) / 127.5


def _camera(
    images: Sequence[Tensor] | Tensor,
    camera_params: Sequence[tuple[Tensor, Tensor]],
    convention: str,
    device: torch.device,
) -> tuple[Camera | None, Tensor | None]:
    """Camera of V views and their images (V, 3, H, W); nothing of no images."""
    if len(images) == 0:
        return None, None
    sizes = {tuple(image.shape) for image in images}
    if len(sizes) > 1 or any(image.ndim != 3 or image.shape[0] != 3 for image in images):
        raise ValueError(f'images must be (3, H, W) of one size, got {sorted(sizes)}')
    stacked = torch.stack(list(images)).to(device)
    intrinsics, poses = (
        torch.stack([matrix.to(device, torch.float32) for matrix in matrices])
        for matrices in zip(*camera_params)
    )
    return camera_views(intrinsics, poses, size_of(stacked), convention)[0], stacked


def _views(xyz: Tensor, images: Tensor, camera: Camera, depth: Tensor | None) -> PosedViews:
    return PosedViews(
        pairs=project_pairs(xyz, camera, depth),
        world_from_cam=camera.world_from_cam,
        image_size=camera.image_size,
        num_points=len(xyz),
        images=images,
    )


def _check_trace(trace: Tensor, num_points: int, views: PosedViews | None) -> None:
    if views is None:
        raise ValueError('trace: there are no views')
    if trace.ndim != 1 or trace.dtype != torch.int64:
        raise ValueError(f'trace must be (n,) int64, got {trace.dtype} {tuple(trace.shape)}')
    if len(trace) and not 0 <= int(trace.min()) <= int(trace.max()) < num_points:
        raise ValueError(f'trace names points outside 0…{num_points - 1}')


def _sources(
    xyz: Tensor,
    rows: Tensor,
    views: PosedViews,
    camera: Camera,
    depth: Tensor | None,
    model: FeatureLiftingSegmentation,
) -> Provenance:
    """Sources of the points ``rows``; views that see a point but are not read have no weight."""
    pairs, confidence = reliable_pairs(
        xyz, views, model.max_views, model.distance_decay, model.normal_voxel
    )
    weights = xyz.new_zeros(views.num_views, len(xyz))
    weights[pairs.view, pairs.point] = confidence

    return trace_sources(
        xyz[rows],
        camera.intrinsics,
        camera.world_from_cam,
        camera.image_size,
        depth,
        weights=weights[:, rows],
    )
