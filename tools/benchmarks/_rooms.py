"""Views of made-up scenes, and how ways to lift their maps to points are compared.

Enters: numbers of views and points. Leaves: points (N, 3) in metres, a camera of V views, exact
depth (V, h, w). A way to lift is a function of (points, camera, depth, maps, byte budget) that
returns (N, C) features and (N,) the sum of the weights that went into each.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from oneformer3d.lifting import Camera, project_pairs
from tools.benchmarks._measure import clocked, peak_memory, print_table, take_turns

DEPTH_SIZE = (240, 320)
IMAGE_SIZE = (480, 640)
Lifting = Callable[..., tuple[Tensor, Tensor]]
Scene = dict[str, object]  # points, camera, depth, maps


def make_room(
    num_views: int, num_points: int, generator: torch.Generator
) -> tuple[Tensor, Camera, Tensor]:
    """Points on the six faces of a 6 x 3 x 5 m box, cameras near its middle, exact depth."""
    half = torch.tensor([3.0, 1.5, 2.5])
    areas = torch.stack((half[1] * half[2], half[0] * half[2], half[0] * half[1]))
    axis = torch.multinomial(areas, num_points, replacement=True, generator=generator)
    points = (2 * torch.rand(num_points, 3, generator=generator) - 1) * half  # (N, 3)
    side = 2.0 * torch.randint(0, 2, (num_points,), generator=generator) - 1
    points[torch.arange(num_points), axis] = side * half[axis]

    angles = 2 * math.pi * torch.rand(num_views, generator=generator)
    camera = make_cameras(angles, radius=-1.0, tilt=0.15, focal=430.0)

    # Where a ray leaves the box: the nearest of the three faces ahead of it.
    small = camera.resize(DEPTH_SIZE)
    rays = small.unproject(torch.ones(num_views, *DEPTH_SIZE))  # (V, h, w, 3)
    centre = small.world_from_cam[:, None, None, :3, 3]
    direction = rays - centre
    depth = ((half * direction.sign() - centre) / direction).amin(-1)  # (V, h, w)
    return points, camera, depth


def make_cameras(
    angles: Tensor,
    radius: float,
    tilt: float,
    focal: float,
    image_size: tuple[int, int] = IMAGE_SIZE,
) -> Camera:
    """Cameras looking along horizontal directions, ``radius`` metres ahead of the middle."""
    zero = torch.zeros_like(angles)
    forward = torch.stack((angles.sin(), zero + tilt, angles.cos()), -1)
    forward = forward / forward.norm(dim=-1, keepdim=True)
    right = torch.stack((angles.cos(), zero, -angles.sin()), -1)
    down = torch.linalg.cross(forward, right)

    pose = torch.eye(4).repeat(len(angles), 1, 1)  # (V, 4, 4)
    pose[:, :3, :3] = torch.stack((right, down, forward), dim=-1)
    pose[:, :3, 3] = radius * forward
    height, width = image_size
    intrinsics = torch.tensor(
        [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]
    )
    return Camera(intrinsics.expand(len(angles), 3, 3), pose, image_size)


def time_sides(
    functions: Mapping[str, Lifting], scene: Scene, sizes: Mapping[str, int], tolerance: float
) -> dict:
    """Median seconds of each side, and the share of visible pairs.

    Raises:
        ValueError: a side lifts other features than 'ours'.
    """
    inputs = (*scene.values(), sizes['budget_mb'] << 20)
    results: dict[str, tuple[Tensor, Tensor]] = {}

    def turn(side: str) -> dict[str, float]:
        results[side], numbers = clocked(functions[side], *inputs)
        return numbers

    for function in functions.values():
        warm_up(function, inputs)
    numbers: dict = take_turns({side: partial(turn, side) for side in functions}, sizes['repeats'])

    features, total = results['ours']
    for side, (other, other_total) in results.items():
        # A pixel exactly on a limit may fall on either side of it.
        same = (other_total - total).abs() < 1e-3
        if same.float().mean() < 0.999 or not torch.allclose(
            other[same], features[same], atol=tolerance
        ):
            raise ValueError(f'{side} and ours disagree')

    num_pairs = len(project_pairs(scene['points'], scene['camera'], scene['depth']))
    numbers['visible'] = num_pairs / (len(scene['points']) * sizes['views'])
    return numbers


def measure_peak(function: Lifting, scene: Scene, sizes: Mapping[str, int]) -> dict:
    """Peak memory of one run beyond the inputs, and the bytes of what it returns."""
    inputs = (*scene.values(), sizes['budget_mb'] << 20)
    warm_up(function, inputs)
    (features, total), peak = peak_memory(function, *inputs)
    return {'peak_mb': peak, 'result_mb': (features.numel() + total.numel()) * 4 / 2**20}


def warm_up(function: Lifting, inputs: tuple) -> None:
    """A first small run, so that what libraries need once is not counted."""
    function(inputs[0][:1000].clone(), *inputs[1:])


def show(title: str, labels: Mapping[str, str], row: Mapping) -> None:
    """Print a title and a line per side."""
    print(f'{title}, {row["visible"]:.1%} of the pairs visible')
    names = {
        'seconds': ('seconds', '.2f'),
        'CPU s': ('cpu_seconds', '.2f'),
        'peak MB': ('peak_mb', '.0f'),
        'of it result MB': ('result_mb', '.0f'),
        'spread': ('spread', '.0%'),
    }
    rows = {
        label: [row[side].get(name) for name, _ in names.values()] for side, label in labels.items()
    }
    print_table({heading: form for heading, (_, form) in names.items()}, rows)
