"""A room seen through a door: what contraction of the space beyond the box changes.

Enters: steps, a seed. Leaves: the depth errors of the wall with the door and of the wall far behind
it, and the colours seen through the door, in views held out, with contraction and without.

Letters: H × W pixels.
"""

import math
from dataclasses import replace

import torch

from oneformer3d.fields.asking.evaluate import render_view
from oneformer3d.fields.fitting.settings import FitSettings, make_fit_settings
from oneformer3d.fields.scene.arrays import scene_from_arrays
from oneformer3d.fields.scene.scene import FieldScene
from tools.benchmarks._field_fits import CONFIG, fit
from tools.benchmarks._measure import print_table

NEAR, FAR = 2.0, 24.0  # z of the wall with the door, and of the wall behind it
SIZE = (24, 32)
_HOLDOUT = 4


def door_scene(num_views: int = 8) -> FieldScene:
    """Views along z of a patterned wall with a hole in its middle, and of a wall far behind."""
    height, width = SIZE
    focal = 18.0
    intrinsics = torch.tensor(
        [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]
    )
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    pixels = torch.stack((u, v, torch.ones_like(u)), dim=-1).float()
    rays = pixels @ torch.linalg.inv(intrinsics).T  # (H, W, 3) of length 1 along z

    images, depths, poses = [], [], []
    for view in range(num_views):
        # cameras on a circle in front of the door
        pose = torch.eye(4)
        angle = 2 * math.pi * view / num_views
        pose[:2, 3] = 0.4 * torch.tensor([math.cos(angle), math.sin(angle)])

        # the door's opening shows the wall behind
        points = pose[:3, 3] + rays * NEAR
        is_door = (points[..., 0].abs() < 0.6) & (points[..., 1].abs() < 0.7)
        depth = torch.where(is_door, FAR, NEAR)
        points = pose[:3, 3] + rays * depth[..., None]
        images.append(0.5 + 0.4 * torch.sin(5 * points))
        depths.append(depth)
        poses.append(pose)
    return scene_from_arrays(images, [intrinsics] * num_views, poses, depth=depths, name='door')


def measure_door(steps: int, seed: int, device: str) -> dict:
    """Both fields' numbers, by 'box' and 'contracted', and a table of them."""
    scene, result = door_scene(), {}
    for side, contracted in (('box', False), ('contracted', True)):
        fitted = fit(scene, door_settings(steps, seed, contracted), side, device)
        result[side] = {'cpu_seconds': fitted.report['cpu_seconds']}

        # errors of all pixels of the views held out, by what they show
        errors: dict[str, list[torch.Tensor]] = {'near': [], 'far': [], 'door_color': []}
        for view in scene.split(_HOLDOUT)[1]:
            content = scene.read(view)
            assert content.depth is not None
            shown, is_door = render_view(fitted, scene.camera[view]), content.depth == FAR
            depth_error = (shown['depth'] - content.depth).abs()
            errors['near'].append(depth_error[~is_door])
            errors['far'].append(depth_error[is_door])
            squared = (shown['rgb'] - content.rgb / 255) ** 2
            errors['door_color'].append(squared[is_door].mean(-1))
        joined = {name: torch.cat(rows) for name, rows in errors.items()}
        result[side] |= {f'{name}_mean': float(x.mean()) for name, x in joined.items()}
        result[side] |= {f'{name}_median': float(x.median()) for name, x in joined.items()}

    names = ['cpu_seconds', 'near_median', 'near_mean', 'far_median', 'far_mean']
    columns = ['CPU s', 'near median', 'mean', 'far median', 'mean ', 'door colours']
    print_table(
        dict.fromkeys(columns, '.3f'),
        {side: [row[x] for x in [*names, 'door_color_mean']] for side, row in result.items()},
    )
    return result


def door_settings(steps: int, seed: int, contracted: bool) -> FitSettings:
    """The shipped settings with more samples, which a box of empty space needs."""
    settings = make_fit_settings(
        CONFIG,
        {
            'steps': steps,
            'seed': seed,
            'far': 30.0,
            'surface_pixels': 1536,
            'coarse_samples': 16,
            'view_coarse_samples': 64,
            'view_fine_samples': 32,
            'holdout_every': _HOLDOUT,
        },
    )
    return replace(settings, field_options={**settings.field_options, 'contracted': contracted})
