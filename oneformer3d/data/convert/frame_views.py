"""Frames of a recording as views of one scene, whose infos name one camera.

Enters: ``PosedFrame`` records with their pixels. Leaves: views in a ``ViewWriter``; intrinsics that
are not the scene's are listed with their frame.
"""

import numpy as np
from numpy.typing import NDArray

from ..layouts import PosedFrame
from ..layouts.common import CommonCamera
from .conversion import Record, ViewWriter, jpeg_or_pixels

_MAX_MILLIMETRES = 65534  # 65535 is what some scanners write for missing depth


def add_frame(
    views: ViewWriter,
    common: CommonCamera,
    name: str,
    world_from_cam: NDArray,
    frame: PosedFrame,
    color: NDArray[np.uint8],
    depth: NDArray[np.float32] | None,
) -> None:
    """Write one frame at the scene's common sizes."""
    fitted = common.fit(frame, color, depth)
    cameras = {
        'cam2img': (fitted.intrinsics, common.intrinsics),
        'depth2img': (fitted.depth_intrinsics, common.depth_intrinsics),
    }
    own = {
        key: K
        for key, (K, of_scene) in cameras.items()
        if K is not None and not np.array_equal(K, of_scene)
    }
    millimetres = None if fitted.depth is None else as_millimetres(fitted.depth)
    views.add(name, world_from_cam, jpeg_or_pixels(frame, fitted.color), millimetres, own)


def finish_views(views: ViewWriter, common: CommonCamera, num_dropped_poses: int) -> Record:
    """The part of the scene's entry that is about images."""
    return views.finish(
        common.intrinsics,
        common.intrinsics if common.depth_intrinsics is None else common.depth_intrinsics,
        common.image_size,
        common.image_size if common.depth_size is None else common.depth_size,
        num_dropped_poses,
    )


def as_millimetres(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Depth in metres as whole millimetres; what 16 bits cannot hold is missing."""
    millimetres = np.round(depth * 1000)
    return np.where(millimetres > _MAX_MILLIMETRES, 0, millimetres).astype(np.uint16)
