"""One room, made, recorded and fused as a real scan.

Enters: a seed and a scene name. Leaves: a ``RoomScan`` of the class table *rooms*.
"""

import hashlib

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from ..classes import ROOMS_CLASSES, raw_id
from ..mesh import RoomMesh, join_objects
from ..render import RenderedFrame
from ..scan import RoomScan
from .fuse import LabelledScan, fuse_recording
from .layout import make_scanned_room
from .sensor import SensorFrame, make_surfaces, record
from .settings import ScannedSettings
from .walk import small_rotation, tracked, walk_through

_SHINY = tuple(raw_id(name, ROOMS_CLASSES) for name in ('window', 'monitor', 'sink', 'whiteboard'))


def generate_scanned_scene(
    seed: int, settings: ScannedSettings | None = None, scene: str = 'room0000_00'
) -> RoomScan:
    """Make, record and fuse one room.

    Args:
        seed: seed of the whole set, not negative.
        settings: sizes, counts and errors; ``small_scanned_settings()`` for a room within a second.
        scene: scene name; with the seed it decides everything random.

    Returns:
        The scan, turned anyhow about the vertical, in the world of its tracker.

    Raises:
        ValueError: negative seed.
    """
    if seed < 0:
        raise ValueError(f'seed: expected 0 or more, got {seed}')
    settings = ScannedSettings() if settings is None else settings
    name_digest = int.from_bytes(hashlib.sha256(scene.encode()).digest()[:8], 'little')
    rng = np.random.default_rng([seed, name_digest, 1])

    room = make_scanned_room(rng, settings)
    mesh = join_objects(room.objects)
    rays = EmbreeScene()
    TriangleMesh(rays, mesh.vertices.astype(np.float32), mesh.faces)

    poses = walk_through(rng, rays, room, int(rng.integers(*settings.num_views, endpoint=True)))
    intrinsics = _intrinsics(rng, settings)
    surfaces, noise = (
        make_surfaces(rng, mesh, room.high, _SHINY),
        rng.uniform(*settings.depth_noise),
    )
    frames = [
        record(rng, rays, mesh, surfaces, intrinsics, pose, settings, noise) for pose in poses
    ]

    world_from_room = _turned_world(rng, settings)
    reported = [world_from_room @ pose for pose in tracked(rng, poses, settings)]
    # things vote with their instance, stuff with its class above all instances
    num_instances = int(mesh.instance_ids.max(initial=0))
    is_thing = mesh.instance_ids > 0
    codes = np.where(is_thing, mesh.instance_ids, num_instances + mesh.raw_ids)
    fused = fuse_recording(frames, intrinsics, reported, codes, settings.voxel_size)
    semantic, instance = _labels(fused, mesh, settings.min_instance_points)

    shown = [
        _rendered(frame, mesh, world_from_cam)
        for frame, world_from_cam in zip(frames, reported, strict=True)
    ]
    return RoomScan(fused.points, fused.superpoints, semantic, instance, shown, intrinsics)


def _labels(fused: LabelledScan, mesh: RoomMesh, min_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Raw class ids and instance ids (N,) of voted codes; what has few points has neither."""
    num_instances = int(mesh.instance_ids.max(initial=0))
    raw_of_code = np.arange(num_instances + len(ROOMS_CLASSES) + 1) - num_instances
    raw_of_code[0] = 0
    is_thing = mesh.instance_ids > 0
    raw_of_code[mesh.instance_ids[is_thing]] = mesh.raw_ids[is_thing]

    code = np.maximum(fused.voted, 0)
    instance = np.where(code <= num_instances, code, 0)
    few = (np.bincount(instance, minlength=num_instances + 1) < min_points)[instance]
    few &= instance > 0
    return np.where(few, 0, raw_of_code[code]), np.where(few, 0, instance)


def _intrinsics(rng: np.random.Generator, settings: ScannedSettings) -> np.ndarray:
    h, w = settings.image_size
    focal = w / 2 / np.tan(np.radians(rng.uniform(*settings.field_of_view)) / 2)
    return np.array([[focal, 0, (w - 1) / 2], [0, focal, (h - 1) / 2], [0, 0, 1.0]])


def _turned_world(rng: np.random.Generator, settings: ScannedSettings) -> np.ndarray:
    """(4, 4): any turn about the vertical, a slight lean, the origin anywhere."""
    world_from_room = np.eye(4)
    yaw, lean = rng.uniform(0, 2 * np.pi), np.radians(settings.tilt) * rng.normal(0, 0.5, 2)
    turn = small_rotation(np.array([0, 0, yaw]))
    world_from_room[:3, :3] = small_rotation(np.array([*lean, 0.0])) @ turn
    world_from_room[:3, 3] = rng.uniform(-2, 2, 3)
    return world_from_room


def _rendered(frame: SensorFrame, mesh: RoomMesh, world_from_cam: np.ndarray) -> RenderedFrame:
    """The frame as files keep it, under the pose that the tracker reported."""
    hit = frame.part >= 0
    return RenderedFrame(
        color=frame.color,
        point_color=frame.color,
        depth=np.round(1000 * np.minimum(frame.depth, 65.0)).astype(np.uint16),
        semantic=np.where(hit, mesh.raw_ids[frame.part], 0).astype(np.uint8),
        instance=np.where(hit, mesh.instance_ids[frame.part], 0).astype(np.uint16),
        normal=np.zeros((*frame.depth.shape, 3), np.float32),
        world_from_cam=world_from_cam,
    )
