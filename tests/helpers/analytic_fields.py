"""Fields with a known answer, for tests: a room of coloured walls and a homogeneous slab."""

import torch
from torch import Tensor

from oneformer3d.fields import Field, Rays, SceneBox
from oneformer3d.fields.networks.heads import Head
from oneformer3d.lifting import Camera

# Half sides of the room in metres, and a colour for each of −x, +x, −y, +y, −z, +z.
ROOM = torch.tensor([2.0, 1.5, 1.0])
WALL_COLOURS = torch.tensor(
    [[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]]
)  # fmt: skip


class _Known(Head):
    """A head that is a function of the hidden values, which hold the world position."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def sample(self, hidden, positions, directions=None, patch_size=None) -> Tensor:
        return self.function(hidden)


class KnownField(Field):
    """Density per metre and heads as functions of the world position."""

    def __init__(self, density, heads, scene_box: SceneBox | None = None) -> None:
        super().__init__(scene_box)
        self.world = density
        for name, function in heads.items():
            self.head_nets[name] = _Known(function)

    def density(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        world = self.scene_box.to_world(positions)
        return self.world(world) / self.scene_box.scale, world


def wall(points: Tensor) -> Tensor:
    """Which wall of the room a point on or beyond it belongs to."""
    beyond = points / ROOM.to(points)
    axis = beyond.abs().argmax(-1)
    return 2 * axis + (beyond.gather(-1, axis[..., None])[..., 0] > 0)


def room_field(scene_box: SceneBox | None = None) -> KnownField:
    """Empty inside the room, solid beyond its walls."""
    return KnownField(
        lambda x: (x.abs() > ROOM.to(x)).any(-1).to(x) * 1e5,
        {
            'rgb': lambda x: WALL_COLOURS[wall(x)],
            'semantics': lambda x: torch.eye(6)[wall(x)],
        },
        scene_box,
    )


def room_distance(rays: Rays) -> Tensor:
    """Distance from inside the room to its walls, each axis by itself."""
    sign = torch.where(rays.directions > 0, 1.0, -1.0)
    along = (ROOM - sign * rays.origins) / rays.directions.abs()
    return along.amin(-1)


def look_around(num_views: int = 3, size: tuple[int, int] = (12, 16)) -> Camera:
    """Cameras inside the room, turned about the vertical axis."""
    height, width = size
    intrinsics = torch.tensor([[14.0, 0, width / 2 - 0.5], [0, 15.0, height / 2], [0, 0, 1]])
    poses = []
    for view in range(num_views):
        angle = torch.tensor(0.3 + 2.1 * view)
        pose = torch.eye(4)
        sin, cos = angle.sin(), angle.cos()
        # z forward in the plane, y down, x right
        pose[:3, :3] = torch.tensor([[sin, 0, cos], [-cos, 0, sin], [0, -1, 0]])
        pose[:3, 3] = torch.tensor([0.2 * view, -0.1, 0.05])
        poses.append(pose)
    return Camera(intrinsics, torch.stack(poses), size)


def random_rays(num_rays: int, near: float = 0.1, far: float = 6.0, dtype=None) -> Rays:
    """Rays from near the origin into all directions."""
    directions = torch.nn.functional.normalize(torch.randn(num_rays, 3, dtype=dtype), dim=-1)
    ones = torch.ones(num_rays, dtype=dtype)
    origins = 0.2 * torch.rand(num_rays, 3, dtype=dtype)
    return Rays(origins, directions, near * ones, far * ones, ones)
