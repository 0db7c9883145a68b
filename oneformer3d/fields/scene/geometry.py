"""How a scene was read, in a few numbers: a fit that goes on must read it the same way.

Enters: a ``FieldScene``. Leaves: numbers of one view that change with the intrinsics, with the
convention of the poses and with the unit of depth, and the words for what differs.
"""

from collections.abc import Mapping, Sequence

from .scene import FieldScene

Geometry = Mapping[str, Sequence[float]]
_DIGITS = 5  # significant; less than what rounding of resized images could touch


def view_geometry(scene: FieldScene, view: int) -> dict[str, list[float]]:
    """Numbers of one view, by what they are of.

    Args:
        scene: to look at.
        view: index; its images are read.

    Returns:
        'intrinsics' fx, fy, cx, cy in pixels; 'pose' the rows [R | t] of world_from_cam; with
        depth 'depth', the median of what was measured in metres (0 where nothing was).
    """
    content = scene.read(view)
    camera = scene.view_camera(view, content)
    (fx, _, cx), (_, fy, cy), _ = camera.intrinsics.tolist()
    numbers: dict[str, list[float]] = {
        'intrinsics': [fx, fy, cx, cy],
        'pose': camera.world_from_cam[:3].flatten().tolist(),
    }
    if content.depth is not None:
        measured = content.depth[content.depth > 0]
        numbers['depth'] = [float(measured.median()) if len(measured) else 0.0]
    return {name: [_rounded(value) for value in row] for name, row in numbers.items()}


def geometry_differences(old: Geometry, new: Geometry) -> list[str]:
    """One phrase for each thing that was read otherwise.

    Example:
        >>> geometry_differences({'depth': [2.0]}, {'depth': [0.2]})
        ['depth of the first view was 2, now 0.2']
    """

    def words(numbers: Sequence[float] | None) -> str:
        return 'none' if numbers is None else ' '.join(f'{value:g}' for value in numbers)

    return [
        f'{name} of the first view was {words(old.get(name))}, now {words(new.get(name))}'
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _rounded(value: float) -> float:
    return float(f'{value:.{_DIGITS}g}')
