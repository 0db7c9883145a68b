"""Whatever shows a scene, opened: a scan, or the result of segmenting one.

Enters: a path. Leaves: an ``OpenedScene``: its points, its posed images, and its segmentation where
there is one. N points.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oneformer3d.data.layouts import PosedFolder, find_layout
from oneformer3d.data.posed_rgbd import load_posed_rgbd
from oneformer3d.data.scan import read_scan
from oneformer3d.data.upright import rotation_to_z_up
from oneformer3d.structures import Segmentation

from .scans import RESULT_FILE

_OF_IMAGES = ('convention', 'depth_scale', 'intrinsics', 'rules')


@dataclass(frozen=True, eq=False)
class OpenedScene:
    """A scene to look at.

    Attributes:
        source: what was opened.
        points: (N, 6) float32 xyz in metres, rgb 0–255.
        upright_from_scan: (3, 3) float32 rotation that puts z up.
        origin: (3,) float64 metres; ``xyz + origin`` are the coordinates of the cameras.
        recording: its posed images, None where there are none.
        segmentation: of these points, None of a scan.
        warnings: what was assumed.
        path: of the scan, which a result remembers.
    """

    source: str
    points: NDArray[np.float32]
    upright_from_scan: NDArray[np.float32]
    origin: NDArray[np.float64]
    recording: PosedFolder | None = None
    segmentation: Segmentation | None = None
    warnings: tuple[str, ...] = ()
    path: str = ''

    @property
    def upright(self) -> NDArray[np.float32]:
        """(N, 3) the points with z up."""
        return self.points[:, :3] @ self.upright_from_scan.T

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """(N, 3) colours of the scan."""
        return self.points[:, 3:].astype(np.uint8)


def open_scene(
    source: str | Path, images: str | Path | None = None, **scan_options: Any
) -> OpenedScene:
    """Open a scan or a result.

    Args:
        source: a folder that ``Segmentation.save`` wrote, or whatever ``read_scan`` takes.
        images: folder of the posed images of the same scene, in its coordinates; None takes the
            scan's own, of a result those that it was made from, where they still lie there.
        scan_options: of ``read_scan``, for a scan; those of posed images also for ``images``.

    Raises:
        FileNotFoundError, ValueError: as ``read_scan``, ``Segmentation.load`` and
            ``load_posed_rgbd``.
        TypeError: an unknown option.
    """
    of_images = {name: scan_options[name] for name in _OF_IMAGES if name in scan_options}
    recording = None if images is None else load_posed_rgbd(images, **of_images)
    if (Path(source) / RESULT_FILE).is_file():
        return _open_result(Path(source), recording)

    scan = read_scan(source, **scan_options)
    return OpenedScene(
        str(source),
        scan.require_points(),
        rotation_to_z_up(scan.up).astype(np.float32),
        scan.origin,
        recording or scan.recording,
        None,
        scan.warnings,
        scan.path,
    )


def scene_of_result(
    result: Segmentation, source: str, recording: PosedFolder | None
) -> OpenedScene:
    """A segmentation that was just made, and the images that show the same."""
    return OpenedScene(
        source,
        result.points,
        result.upright_from_scan,
        result.origin,
        recording,
        result,
        result.warnings,
        result.info.source,
    )


def _open_result(folder: Path, recording: PosedFolder | None) -> OpenedScene:
    """A result; its images are found where its scan was, if that was a folder of them."""
    result = Segmentation.load(folder)
    scan = Path(result.info.source or '-')
    if recording is not None or not scan.is_dir():
        return scene_of_result(result, str(folder), recording)

    try:
        return scene_of_result(result, str(folder), find_layout(scan))
    except ValueError as error:  # what was stated to read the scan is not part of its result
        opened = scene_of_result(result, str(folder), None)
        return replace(opened, warnings=(*opened.warnings, f'without its images: {error}'))
