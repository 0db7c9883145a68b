"""A scan with images → labels of its points, in one call.

Enters: a point cloud, images and their cameras, a trained ``FeatureLiftingSegmentation``. Leaves:
the cloud with ``labels`` and ``label_confidence``. N points, V views.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .lifting.inputs import camera_views, check_points, depth_views
from .lifting.pairs import project_pairs, zbuffer_views
from .mvpnet import FeatureLiftingSegmentation
from .structures import PosedViews

OCCLUSION = ('zbuffer', 'none')


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
) -> dict[str, Any]:
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

    Returns:
        A copy of ``pc_data`` with ``labels`` (N,) int64 and ``label_confidence`` (N,) float32,
        the probability of the label.

    Raises:
        ValueError: no ``pos``, no colours where they are needed, images of different sizes or
            with pixels that are not finite, another number of cameras, cameras that cannot
            project, unknown options.
    """
    if occlusion not in OCCLUSION:
        raise ValueError(f'occlusion must be one of {OCCLUSION}, got {occlusion!r}')
    if 'pos' not in pc_data:
        raise ValueError("pc_data has no 'pos'")
    if len(images) != len(camera_params):
        raise ValueError(f'{len(images)} images but {len(camera_params)} camera_params')
    device = next(model.parameters()).device
    xyz = check_points(pc_data['pos']).float().to(device)
    if not bool(torch.isfinite(xyz).all()):
        raise ValueError("pc_data['pos']: not all coordinates are finite")
    points = torch.cat((xyz, _colors(pc_data, model).to(device)), dim=1)
    views = _views(xyz, images, camera_params, convention, depth, occlusion, point_size)
    training = model.training
    model.eval()
    try:
        (logits,) = model.logits({'points': [points], 'views': [views]})
    finally:
        model.train(training)
    if len(points) == 0:
        confidence, labels = xyz.new_zeros(0), torch.zeros(0, dtype=torch.int64, device=device)
    else:
        confidence, labels = logits.softmax(1).max(1)
    return {**pc_data, 'labels': labels, 'label_confidence': confidence}


def _colors(pc_data: Mapping[str, Any], model: FeatureLiftingSegmentation) -> Tensor:
    """(N, 3) as the data pipeline normalises them; zeros for a model that does not look."""
    xyz = pc_data['pos']
    if 'color' not in model.point_inputs:
        return torch.zeros(len(xyz), 3)
    rgb = pc_data.get('rgb')
    if rgb is None or tuple(rgb.shape) != (len(xyz), 3):
        got = 'none' if rgb is None else f'{tuple(rgb.shape)}'
        raise ValueError(f"the model reads colours: expected 'rgb' ({len(xyz)}, 3), got {got}")
    return (rgb.float() - 127.5) / 127.5


def _views(
    xyz: Tensor,
    images: Sequence[Tensor] | Tensor,
    camera_params: Sequence[tuple[Tensor, Tensor]],
    convention: str,
    depth: Tensor | None,
    occlusion: str,
    point_size: int,
) -> PosedViews | None:
    if len(images) == 0:
        return None
    sizes = {tuple(image.shape) for image in images}
    if len(sizes) > 1 or any(image.ndim != 3 or image.shape[0] != 3 for image in images):
        raise ValueError(f'images must be (3, H, W) of one size, got {sorted(sizes)}')
    stacked = torch.stack(list(images)).to(xyz.device)
    intrinsics, poses = (
        torch.stack([matrix.to(xyz) for matrix in matrices]) for matrices in zip(*camera_params)
    )
    size = tuple(stacked.shape[-2:])
    camera, _ = camera_views(intrinsics, poses, size, convention)
    depth = depth_views(depth, len(stacked), single=False)
    if depth is None and occlusion == 'zbuffer':
        depth = zbuffer_views(xyz, camera, point_size)
    pairs = project_pairs(xyz, camera, None if depth is None else depth.to(xyz))
    return PosedViews(
        pairs=pairs,
        world_from_cam=camera.world_from_cam,
        image_size=size,
        num_points=len(xyz),
        images=stacked,
    )
