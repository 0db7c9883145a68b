"""Posed RGB-D frames of a room with label maps, ray-cast without a screen.

Enters: a ``RoomMesh``. Leaves: V ``RenderedFrame`` records and their common intrinsics (3, 3).

Axes are OpenCV's (z forward), poses ``world_from_cam``, the centre of the top-left pixel is (0, 0),
depth is z in metres.

Colour is texture × light. In the image the texture of fine patterns is averaged over four samples
per pixel. ``RenderedFrame.point_color`` is the same surface under the same light sampled once, at
the pixel's centre: the colours of a cloud are single samples, since averaging would blur a pattern
by its direction and so tell it.

Letters: V views, H × W pixels, M pixels that hit something.
"""

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from .cameras import make_intrinsics, pixel_rays, walk
from .layout import Room
from .mesh import RoomMesh
from .settings import RoomSettings
from .textures import surface_color

FINE_PERIOD = 0.1
AMBIENT = 0.45
MIN_COSINE = 0.05


@dataclass(frozen=True)
class RenderedFrame:
    """One posed image.

    Attributes:
        color: (H, W, 3) uint8 RGB.
        point_color: (H, W, 3) uint8 RGB, one surface sample at each pixel's centre.
        depth: (H, W) uint16 millimetres, 0 = missing.
        semantic: (H, W) uint8 raw class ids.
        instance: (H, W) uint16 instance ids.
        normal: (H, W, 3) float32 surface normals in the world, towards the camera, 0 = missing.
        world_from_cam: (4, 4) float64.
    """

    color: np.ndarray
    point_color: np.ndarray
    depth: np.ndarray
    semantic: np.ndarray
    instance: np.ndarray
    normal: np.ndarray
    world_from_cam: np.ndarray


@dataclass(frozen=True)
class Hits:
    """First hits of a camera's rays: pixel (M,), face (M,), z (M,), cosine (M,), xyz (M, 3)."""

    pixel: np.ndarray
    face: np.ndarray
    z: np.ndarray
    cosine: np.ndarray
    xyz: np.ndarray


def render_room(
    rng: np.random.Generator, room: Room, mesh: RoomMesh, settings: RoomSettings
) -> tuple[list[RenderedFrame], np.ndarray]:
    """Walk through a room and take images.

    Args:
        room: the room, for where the cameras may be.
        mesh: its surfaces.
        settings: number and size of images, noise.

    Returns:
        V frames and their common (3, 3) float64 intrinsics.
    """
    intrinsics = make_intrinsics(rng, settings)
    scene = EmbreeScene()
    TriangleMesh(scene, mesh.vertices.astype(np.float32), mesh.faces)

    light = room.low + (room.high - room.low) * np.array([*rng.uniform(0.3, 0.7, 2), 0.93])
    poses = walk(rng, scene, room, settings.num_views)
    frames = [
        render_view(rng, scene, mesh, light, intrinsics, world_from_cam, settings)
        for world_from_cam in poses
    ]
    return frames, intrinsics


def render_view(
    rng: np.random.Generator,
    scene: EmbreeScene,
    mesh: RoomMesh,
    light: np.ndarray,
    intrinsics: np.ndarray,
    world_from_cam: np.ndarray,
    settings: RoomSettings,
) -> RenderedFrame:
    """Take one image.

    Args:
        scene: the mesh, ready for rays.
        mesh: its labels and materials.
        light: (3,) position of the lamp in metres.
        intrinsics: (3, 3).
        settings: image size and noise.

    Returns:
        The frame.
    """
    h, w = settings.image_size
    rays = pixel_rays(intrinsics, (h, w)) @ world_from_cam[:3, :3].T  # (H·W, 3)
    hits = cast(scene, mesh, world_from_cam[:3, 3], rays)
    part = mesh.part[hits.face]
    normal = mesh.normals[hits.face]  # (M, 3)
    normal = np.where(dot(normal, rays[hits.pixel])[:, None] > 0, -normal, normal)

    shade = shading(hits.xyz, normal, light)[:, None]
    exposure = 255.0 * rng.uniform(0.85, 1.1) * rng.uniform(0.96, 1.04, 3)
    at_center = texture_at(mesh, hits.face, hits.xyz)
    averaged = average_fine_texture(mesh, hits, at_center, world_from_cam, intrinsics, (h, w))
    noise = rng.normal(0.0, settings.color_noise, (len(part), 3))

    def to_image(values: np.ndarray, dtype: type, *channels: int) -> np.ndarray:
        image = np.zeros((h * w, *channels), dtype=dtype)
        image[hits.pixel] = values
        return image.reshape(h, w, *channels)

    # a grazing ray measures nothing; noise of a structured-light sensor grows with z²
    measured = hits.cosine > MIN_COSINE
    z = hits.z + rng.normal(0.0, settings.depth_noise, len(part)) * hits.z**2
    return RenderedFrame(
        color=to_image(to_uint8(averaged * shade * exposure + noise), np.uint8, 3),
        point_color=to_image(to_uint8(at_center * shade * exposure + noise), np.uint8, 3),
        depth=to_image(np.where(measured, np.round(1000.0 * z), 0), np.uint16),
        semantic=to_image(mesh.raw_ids[part], np.uint8),
        instance=to_image(mesh.instance_ids[part], np.uint16),
        normal=to_image(normal, np.float32, 3),
        world_from_cam=world_from_cam,
    )


def cast(scene: EmbreeScene, mesh: RoomMesh, origin: np.ndarray, rays: np.ndarray) -> Hits:
    """First hits of rays from one point.

    Args:
        scene: the mesh, ready for rays.
        mesh: the same mesh.
        origin: (3,) metres.
        rays: (N, 3) directions whose length is one metre of depth.

    Returns:
        Those rays that hit, with the depth solved in double precision from the face's plane.
    """
    origins = np.tile(origin.astype(np.float32), (len(rays), 1))
    face = scene.run(origins, rays.astype(np.float32))
    pixel = np.flatnonzero(face >= 0)  # (M,)
    face = face[pixel]

    z, cosine = plane_depth(mesh, face, origin, rays[pixel])
    valid = (z > 0) & (cosine > 1e-6)
    pixel, face, z, cosine = pixel[valid], face[valid], z[valid], cosine[valid]
    return Hits(pixel, face, z, cosine, origin + z[:, None] * rays[pixel])


def plane_depth(
    mesh: RoomMesh, face: np.ndarray, origin: np.ndarray, rays: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where rays meet the planes of faces.

    Args:
        face: (M,) faces.
        origin: (3,) metres.
        rays: (M, 3) directions.

    Returns:
        (M,) multiples of the ray, and (M,) |cosine| between ray and normal.
    """
    normal = mesh.normals[face]
    toward = dot(normal, rays)
    cosine = np.abs(toward) / np.linalg.norm(rays, axis=1)
    # n · (o + z d − p) = 0  →  z = n · (p − o) / n · d
    distance = dot(normal, mesh.vertices[mesh.faces[face, 0]] - origin)
    return distance / np.where(np.abs(toward) < 1e-12, 1e-12, toward), cosine


def texture_at(mesh: RoomMesh, face: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """(M, 3) texture colour in [0, 1] at (M, 3) points of (M,) faces."""
    uv_map = mesh.uv_from_world[face]
    # uv = A [x, y, z, 1]
    uv = np.einsum('mij,mj->mi', uv_map[:, :, :3], xyz) + uv_map[:, :, 3]
    return surface_color(mesh.materials, mesh.part[face], uv.astype(np.float32))


def average_fine_texture(
    mesh: RoomMesh,
    hits: Hits,
    at_center: np.ndarray,
    world_from_cam: np.ndarray,
    intrinsics: np.ndarray,
    image_size: tuple[int, int],
) -> np.ndarray:
    """Texture colour of each pixel, over four samples where the pattern is fine.

    Args:
        hits: M pixels.
        at_center: (M, 3) their colour at the pixel's centre.
        intrinsics: (3, 3).

    Returns:
        (M, 3) colour in [0, 1].
    """
    fine = np.flatnonzero(mesh.materials.period[mesh.part[hits.face]] < FINE_PERIOD)
    face, origin = hits.face[fine], world_from_cam[:3, 3]
    total = np.zeros((len(fine), 3), dtype=np.float32)
    for offset in ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25)):
        rays = pixel_rays(intrinsics, image_size, offset)[hits.pixel[fine]]
        rays = rays @ world_from_cam[:3, :3].T
        z, _ = plane_depth(mesh, face, origin, rays)
        z = np.clip(z, 0.8 * hits.z[fine], 1.2 * hits.z[fine])
        total += texture_at(mesh, face, origin + z[:, None] * rays)
    averaged = at_center.copy()
    averaged[fine] = total / 4.0
    return averaged


def shading(xyz: np.ndarray, normal: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Ambient and Lambertian light of one lamp that fades with distance.

    Args:
        xyz: (M, 3) metres.
        normal: (M, 3) unit, towards the camera.
        light: (3,) metres.

    Returns:
        (M,) factor in [0, 1].
    """
    toward = light - xyz
    distance = np.linalg.norm(toward, axis=1)
    lambert = np.abs(dot(toward, normal)) / np.maximum(distance, 1e-6)
    return np.minimum(AMBIENT + 0.65 * lambert / (1.0 + 0.04 * distance**2), 1.0)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(M,) inner products of two (M, 3) arrays, row by row."""
    return np.einsum('mi,mi->m', a, b)


def to_uint8(color: np.ndarray) -> np.ndarray:
    """Round colours and keep them in 0–255."""
    return np.clip(np.round(color), 0, 255).astype(np.uint8)
