"""What is known without any field: the nearest learnt view, moved over by its own depth.

Enters: a ``FieldScene``, the views that may be moved, the views to show. Leaves: plain numbers
beside those of ``evaluate``.

Letters: V views, H × W pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from oneformer3d.lifting import Camera

from ..fitting.step import best_gains, psnr
from ..scene.scene import FieldScene
from .evaluate import depth_report, squared_errors


def nearest_view_baseline(
    scene: FieldScene, learnt: Sequence[int], views: Sequence[int]
) -> dict[str, float]:
    """Measure the nearest learnt view in place of each of some views.

    Every pixel with depth of the nearest view goes where it is visible from the other camera, the
    nearest one winning; holes take the value of the pixel beside them.

    Returns:
        'psnr' and 'psnr_aligned' over all pixels, 'psnr_covered' over those that are no holes,
        'covered' share, and 'depth_error', 'depth_error_median' in metres where there is depth.
    """
    errors, aligned, covered, depth_errors = [], [], [], []
    for view in views:
        content = scene.read(view)
        nearest = nearest_camera(scene.camera, learnt, view)
        rgb, depth, is_covered = reproject(scene, nearest, scene.view_camera(view, content))

        target = content.rgb.float() / 255
        errors.append(squared_errors(rgb, target))
        aligned.append(squared_errors(rgb * best_gains(rgb, target), target))
        covered.append(is_covered.flatten())
        if content.depth is not None:
            depth_errors.append((depth - content.depth).abs()[content.depth > 0])
    if not errors:
        return {}

    error, hit = torch.cat(errors), torch.cat(covered)
    return {
        'psnr': psnr(float(error.mean())),
        'psnr_aligned': psnr(float(torch.cat(aligned).mean())),
        'psnr_covered': psnr(float(error[hit].mean())),
        'covered': float(hit.float().mean()),
        **(depth_report(torch.cat(depth_errors)) if depth_errors else {}),
    }


def nearest_camera(camera: Camera, candidates: Sequence[int], view: int) -> int:
    """The candidate that looks from nearest: metres between centres plus radians between axes."""
    poses = camera.world_from_cam
    of_candidates = poses[list(candidates)]
    distance = (of_candidates[:, :3, 3] - poses[view, :3, 3]).norm(dim=-1)  # (V,)
    cosine = (of_candidates[:, :3, 2] * poses[view, :3, 2]).sum(-1)
    return candidates[int((distance + torch.acos(cosine.clamp(-1, 1))).argmin())]


def reproject(scene: FieldScene, source: int, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """A view's pixels as another camera sees them.

    Returns:
        rgb (H, W, 3) in 0–1 and depth (H, W) without holes, and where pixels fell (H, W).
    """
    content = scene.read(source)
    if content.depth is None:
        raise ValueError(f'{scene.name}/{scene.frames[source]}: has no depth')
    measured = content.depth > 0
    points = scene.view_camera(source, content).unproject(content.depth)[measured]  # (N, 3)
    uv, z = camera.project(points)

    # the pixel that each falls in, where it is inside
    height, width = camera.image_size
    column, row = (uv + 0.5).floor().long().unbind(-1)
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel, z = (row * width + column)[inside], z[inside]
    colors = (content.rgb[measured].float() / 255)[inside]

    # a z-buffer: the nearest is written last; numpy keeps the last of equal indices, torch
    # promises nothing
    order = torch.argsort(z, descending=True)
    rgb, depth = np.zeros((height * width, 3), np.float32), np.zeros(height * width, np.float32)
    depth[pixel[order].numpy()] = z[order].numpy()
    rgb[pixel[order].numpy()] = colors[order].numpy()

    is_covered = depth.reshape(height, width) > 0
    if is_covered.any():
        nearest = np.asarray(
            distance_transform_edt(~is_covered, return_distances=False, return_indices=True)
        )  # (2, H, W)
        index = (nearest[0].astype(np.int64) * width + nearest[1]).ravel()
        rgb, depth = rgb[index], depth[index]
    return (
        torch.from_numpy(rgb).view(height, width, 3),
        torch.from_numpy(depth).view(height, width),
        torch.from_numpy(is_covered),
    )
