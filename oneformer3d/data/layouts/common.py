"""Frames of any cameras as one batch: all images of one size, each with the K it then has.

Enters: F ``PosedFrame`` records, and pixels of each. Leaves: the sizes that most frames have;
pixels and intrinsics resized to them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .cameras import of_size
from .records import Matrix, PosedFrame, Size


@dataclass(frozen=True, eq=False)
class FittedFrame:
    """Pixels of one frame at the common sizes, and their (3, 3) intrinsics.

    Attributes:
        color: (H, W, 3) uint8.
        intrinsics: of colour.
        depth: (h, w) float32 metres, None without depth.
        depth_intrinsics: of depth, None without depth.
    """

    color: NDArray[np.uint8]
    intrinsics: Matrix
    depth: NDArray[np.float32] | None
    depth_intrinsics: Matrix | None


@dataclass(frozen=True, eq=False)
class CommonCamera:
    """The camera that stands for all frames.

    Attributes:
        image_size, depth_size: those of most frames; ``depth_size`` None without depth.
        intrinsics, depth_intrinsics: (3, 3) of the first frame of these sizes.
    """

    image_size: Size
    depth_size: Size | None
    intrinsics: Matrix
    depth_intrinsics: Matrix | None

    def fit(
        self, frame: PosedFrame, color: NDArray[np.uint8], depth: NDArray[np.float32] | None
    ) -> FittedFrame:
        """Pixels of a frame resized to the common sizes; depth takes the nearest pixel."""
        if color.shape[:2] != self.image_size:
            small = cv2.resize(color, self.image_size[::-1], interpolation=cv2.INTER_AREA)
            color = np.asarray(small, np.uint8)
        if depth is not None and self.depth_size is not None and depth.shape != self.depth_size:
            nearest = cv2.INTER_NEAREST_EXACT
            resized = cv2.resize(depth, self.depth_size[::-1], interpolation=nearest)
            depth = np.asarray(resized, np.float32)
        return FittedFrame(color, self.intrinsics_of(frame), depth, self._depth_intrinsics(frame))

    def intrinsics_of(self, frame: PosedFrame) -> Matrix:
        """K of a frame's colour image at the common size."""
        return of_size(frame.K, frame.image_size, self.image_size)

    def _depth_intrinsics(self, frame: PosedFrame) -> Matrix | None:
        if frame.depth_intrinsics is None or frame.depth_size is None or self.depth_size is None:
            return None
        return of_size(frame.depth_intrinsics, frame.depth_size, self.depth_size)


def common_camera(frames: Sequence[PosedFrame]) -> CommonCamera:
    """The sizes that most frames have, and the first cameras of these sizes."""
    image_size = Counter(frame.image_size for frame in frames).most_common(1)[0][0]
    first = next(frame for frame in frames if frame.image_size == image_size)
    sizes = Counter(frame.depth_size for frame in frames if frame.depth_size is not None)
    if not sizes:
        return CommonCamera(image_size, None, first.K, None)

    depth_size = sizes.most_common(1)[0][0]
    first_depth = next(frame for frame in frames if frame.depth_size == depth_size)
    return CommonCamera(image_size, depth_size, first.K, first_depth.depth_intrinsics)
