"""The box that a scene's field fills, and its coordinates in it.

Enters: a similarity and half sides. Leaves: points, lengths and poses in unit or world coordinates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from oneformer3d.lifting import invert_pose, transform_points
from oneformer3d.lifting.shapes import expect_shape


@dataclass(frozen=True)
class SceneBox:
    """The similarity that takes a scene to the unit box [−1, 1]³.

    Attributes:
        unit_from_world: (4, 4): uniform scale, rotation and shift.
        half_extent: (3,) half sides of the scene's own box within the unit box; rays are cut
            to it and nothing outside counts as inside.
    """

    unit_from_world: Tensor
    half_extent: Tensor

    def __post_init__(self) -> None:
        expect_shape('unit_from_world', self.unit_from_world, '4 4')
        expect_shape('half_extent', self.half_extent, '3')

    @classmethod
    def identity(cls) -> 'SceneBox':
        """The box of a scene whose coordinates are unit coordinates already."""
        return cls(torch.eye(4), torch.ones(3))

    @property
    def scale(self) -> Tensor:
        """Unit lengths per metre, a scalar."""
        return torch.linalg.vector_norm(self.unit_from_world[:3, 0])

    @property
    def world_from_unit(self) -> Tensor:
        """(4, 4) inverse."""
        return invert_pose(self.unit_from_world)

    def to_unit(self, points: Tensor) -> Tensor:
        """World (…, 3) → unit coordinates (…, 3)."""
        return transform_points(self.unit_from_world, points)

    def to_world(self, points: Tensor) -> Tensor:
        """Unit (…, 3) → world coordinates (…, 3)."""
        return transform_points(self.world_from_unit, points)

    def length_to_unit(self, metres: Tensor) -> Tensor:
        """Depths, distances or patch sizes in metres → unit lengths."""
        return metres * self.scale

    def pose_to_unit(self, world_from_cam: Tensor) -> Tensor:
        """Poses (…, 4, 4) → rigid poses ``unit_from_cam`` for depths in unit lengths."""
        pose = self.unit_from_world @ world_from_cam
        rotation = pose[..., :3, :3] / self.scale
        upper = torch.cat((rotation, pose[..., :3, 3:]), -1)  # (…, 3, 4)
        return torch.cat((upper, world_from_cam[..., 3:, :]), -2)

    def contains(self, unit_points: Tensor) -> Tensor:
        """Whether unit points (…, 3) lie in the scene's own box, (…) bool."""
        return (unit_points.abs() <= self.half_extent).all(-1)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> 'SceneBox':
        """The box on another device or in another floating point type."""
        return SceneBox(
            self.unit_from_world.to(device=device, dtype=dtype),
            self.half_extent.to(device=device, dtype=dtype),
        )
