"""One synthetic room, made and scanned.

Enters: a seed and a scene name. Leaves: labelled cloud, superpoints and posed RGB-D frames.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from ..superpoints import superpoints_from_points
from .fuse import LabelledCloud, fuse_frames
from .layout import make_room
from .mesh import join_objects
from .render import RenderedFrame, render_room
from .settings import RoomSettings


@dataclass(frozen=True)
class RoomScan:
    """A scanned room.

    Attributes:
        points: (N, 6) float32, xyz in metres and rgb 0–255.
        superpoints: (N,) int64 dense ids.
        semantic: (N,) int64 raw class ids, 0 = unlabeled.
        instance: (N,) int64, 0 = none.
        frames: posed images.
        intrinsics: (3, 3) float64 of all frames.
    """

    points: np.ndarray
    superpoints: np.ndarray
    semantic: np.ndarray
    instance: np.ndarray
    frames: list[RenderedFrame]
    intrinsics: np.ndarray


def generate_scene(
    seed: int, settings: RoomSettings | None = None, scene: str = 'room0000_00'
) -> RoomScan:
    """Make and scan one room.

    Args:
        seed: seed of the whole set, not negative.
        settings: sizes, counts and noise; ``tiny_settings()`` for a room within a second.
        scene: scene name; with the seed it decides everything random.

    Returns:
        The scan.

    Raises:
        ValueError: negative seed.
    """
    if seed < 0:
        raise ValueError(f'seed: expected 0 or more, got {seed}')
    settings = RoomSettings() if settings is None else settings
    name_digest = int.from_bytes(hashlib.sha256(scene.encode()).digest()[:8], 'little')
    rng = np.random.default_rng([seed, name_digest])

    room = make_room(rng, settings)
    frames, intrinsics = render_room(rng, room, join_objects(room.objects), settings)
    cloud = fuse_frames(rng, frames, intrinsics, settings)
    return RoomScan(
        points=cloud.points,
        superpoints=grow_superpoints(rng, cloud, settings),
        semantic=cloud.semantic,
        instance=cloud.instance,
        frames=frames,
        intrinsics=intrinsics,
    )


def grow_superpoints(
    rng: np.random.Generator, cloud: LabelledCloud, settings: RoomSettings
) -> np.ndarray:
    """Superpoints of a cloud from positions, colours and noisy sensor normals; no labels used.

    Args:
        cloud: N points.
        settings: threshold and noise of the normals.

    Returns:
        (N,) int64 dense ids.
    """
    normals = cloud.normals + rng.normal(0.0, settings.normal_noise, cloud.normals.shape)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return superpoints_from_points(
        cloud.points[:, :3],
        cloud.points[:, 3:],
        normals,
        threshold=settings.superpoint_threshold,
    )
