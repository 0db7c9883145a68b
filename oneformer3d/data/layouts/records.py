"""A recording as it lies in its folder, whoever wrote it: posed frames and what was assumed.

Enters: what a layout module lists. Leaves: ``PosedFolder`` with F ``PosedFrame`` records, in OpenCV
axes and metres, each with its own camera. Pixels are read by ``pixels.py`` when asked for.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Size = tuple[int, int]


@dataclass(frozen=True)
class Distortion:
    """Lens distortion of a colour image.

    Attributes:
        fisheye: OpenCV's equidistant model with k1 k2 k3 k4, else its k1 k2 p1 p2 k3.
        coefficients: in that order.
    """

    coefficients: tuple[float, ...]
    fisheye: bool = False


@dataclass(frozen=True, eq=False)
class PosedFrame:
    """One posed image.

    Attributes:
        name: unique in the folder.
        image_path: colour image.
        depth_path: depth image, None where there is none.
        world_from_cam: (4, 4) float64, OpenCV axes, metres.
        K: (3, 3) float64 of the colour image.
        image_size: (H, W) of the colour image.
        depth_intrinsics: (3, 3) of the depth image; None without depth.
        depth_size: (h, w) of the depth image; None without depth.
        depth_scale: units of the depth image per metre.
        distortion: of the lens, None for a pinhole; ``read_images`` takes it out.
    """

    name: str
    image_path: Path
    depth_path: Path | None
    world_from_cam: Matrix
    K: Matrix
    image_size: Size
    depth_intrinsics: Matrix | None = None
    depth_size: Size | None = None
    depth_scale: float = 1000.0
    distortion: Distortion | None = None


@dataclass(frozen=True, eq=False)
class PosedFolder:
    """A folder's usable frames.

    Attributes:
        folder: where it lies.
        source: the layout, and by what it was recognised.
        frames: F frames, in order.
        warnings: what was assumed, left out or doubted, each with a count.
        cloud: file of points of the same scan, None if there is none.
        left_out: frame → why it cannot be used.
        num_dropped_poses: frames whose pose is no finite rigid motion.
        num_incomplete: frames without colour or pose.
    """

    folder: Path
    source: str
    frames: tuple[PosedFrame, ...]
    warnings: tuple[str, ...] = ()
    cloud: Path | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    num_dropped_poses: int = 0
    num_incomplete: int = 0

    @property
    def has_depth(self) -> bool:
        """Whether any frame has a depth image."""
        return any(frame.depth_path is not None for frame in self.frames)

    @property
    def color_intrinsics(self) -> Matrix:
        """(3, 3) of the colour images of all frames.

        Raises:
            ValueError: they differ.
        """
        return self._common([frame.K for frame in self.frames], 'colour')

    @property
    def depth_intrinsics(self) -> Matrix:
        """(3, 3) of the depth images of all frames that have one.

        Raises:
            ValueError: they differ, or there are none.
        """
        return self._common(
            [f.depth_intrinsics for f in self.frames if f.depth_intrinsics is not None], 'depth'
        )

    def _common(self, matrices: list[Matrix], what: str) -> Matrix:
        if not matrices or any(not np.array_equal(matrices[0], other) for other in matrices):
            raise ValueError(f'{self.folder}: its {what} images do not share one camera')
        return matrices[0]


@dataclass(frozen=True, eq=False)
class ListedFrame:
    """A frame as a layout lists it; the pose in the layout's own convention.

    Attributes:
        name, image_path, depth_path: as of ``PosedFrame``; ``image_path`` may be missing.
        pose: (4, 4), None where there is none.
        K: (3, 3), None for the folder's.
        K_size: (H, W) that ``K`` belongs to, None for the colour image's own.
        distortion: see ``PosedFrame``.
        fault: why its pose cannot be read, None where it can.
    """

    name: str
    image_path: Path | None
    depth_path: Path | None
    pose: Matrix | None
    K: Matrix | None = None
    K_size: Size | None = None
    distortion: Distortion | None = None
    fault: str | None = None


@dataclass(frozen=True, eq=False)
class Listing:
    """What a layout module finds in a folder.

    Attributes:
        source: the layout, and by what it was recognised.
        frames: all of them, in order, broken ones too.
        convention: of the poses, one of ``cameras.CONVENTIONS``.
        depth_scale: units per metre of integer depth images.
        float_scale: of floating point depth images.
        color_intrinsics, depth_intrinsics: (3, 3) of the folder's files, None without.
        intrinsics_fault: why no pinhole camera has these, None if one has.
        usual_intrinsics: what such recordings usually have: matrix, image size (H, W), whose it
            is. Taken with a warning where the folder has none.
        usual_color_intrinsics: what colour has where depth has the usual ones.
        warnings: see ``PosedFolder``.
        cloud: see ``PosedFolder``.
        pose_unit: metres per unit of the poses' translation.
    """

    source: str
    frames: tuple[ListedFrame, ...]
    convention: str = 'opencv'
    depth_scale: float = 1000.0
    float_scale: float = 1.0
    color_intrinsics: Matrix | None = None
    depth_intrinsics: Matrix | None = None
    intrinsics_fault: str | None = None
    usual_intrinsics: tuple[Matrix, Size, str] | None = None
    usual_color_intrinsics: Matrix | None = None
    warnings: tuple[str, ...] = ()
    cloud: Path | None = None
    pose_unit: float = 1.0
