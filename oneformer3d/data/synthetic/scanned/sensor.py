"""What a depth camera sees of a room: noise, holes, flying pixels, exposure, uneven surfaces.

Enters: a ``RoomMesh`` and a pose. Leaves: colour (H, W, 3), depth (H, W) and the object of every
pixel (H, W).

H × W pixels, M of them hit something, P parts.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from embreex.rtcore_scene import EmbreeScene

from ..cameras import pixel_rays
from ..mesh import RoomMesh
from ..render import cast, shading, texture_at, to_uint8
from .settings import ScannedSettings

NEAREST = 0.4


@dataclass(frozen=True)
class Surfaces:
    """How a room's surfaces look and reflect.

    Attributes:
        waves: (P, K, 4) of each part: direction and frequency (3), phase of uneven brightness.
        strength: (P,) of the unevenness.
        lost: (P,) how likely depth of a part is missing: glass, screens, steel, black things.
        lights: (L, 3) lamps.
    """

    waves: np.ndarray
    strength: np.ndarray
    lost: np.ndarray
    lights: np.ndarray


@dataclass(frozen=True)
class SensorFrame:
    """One recorded image: color (H, W, 3) uint8, depth (H, W) in metres with 0 for missing, and
    part (H, W) int, -1 where nothing is."""

    color: np.ndarray
    depth: np.ndarray
    part: np.ndarray


def make_surfaces(
    rng: np.random.Generator, mesh: RoomMesh, size: np.ndarray, shiny: tuple[int, ...]
) -> Surfaces:
    """Draw unevenness, lamps and how well each part is measured.

    Args:
        size: (3,) of the room in metres.
        shiny: raw ids of classes whose depth is often missing.
    """
    num = len(mesh.raw_ids)
    waves = rng.normal(0, 1, (num, 5, 4)) * np.array([1, 1, 1, 0])
    waves[..., :3] *= np.exp(rng.uniform(np.log(0.8), np.log(14.0), (num, 5, 1)))
    waves[..., 3] = rng.uniform(0, 2 * np.pi, (num, 5))

    dark = mesh.materials.colors.max(axis=(1, 2)) < 0.15
    is_shiny = np.isin(mesh.raw_ids, shiny) & (rng.random(num) < 0.6)
    lost = np.where(is_shiny, rng.uniform(0.3, 0.95, num), 0.0) + np.where(dark, 0.2, 0.0)
    lamps = rng.uniform((0.15, 0.15, 0.8), (0.85, 0.85, 0.97), (int(rng.integers(1, 4)), 3))
    return Surfaces(waves, rng.exponential(0.07, num), lost, lamps * size)


def record(
    rng: np.random.Generator,
    scene: EmbreeScene,
    mesh: RoomMesh,
    surfaces: Surfaces,
    intrinsics: np.ndarray,
    room_from_cam: np.ndarray,
    settings: ScannedSettings,
    noise: float,
) -> SensorFrame:
    """Record one image.

    Args:
        scene: the mesh, ready for rays.
        intrinsics: (3, 3).
        room_from_cam: (4, 4), where the camera truly is.
        noise: standard deviation of depth at 1 m, in metres.
    """
    h, w = settings.image_size
    rays = pixel_rays(intrinsics, (h, w)) @ room_from_cam[:3, :3].T  # (H·W, 3)
    hits = cast(scene, mesh, room_from_cam[:3, 3], rays)
    part = mesh.part[hits.face]  # (M,)
    normal = mesh.normals[hits.face]

    light = np.mean([shading(hits.xyz, normal, lamp) for lamp in surfaces.lights], axis=0)
    albedo = texture_at(mesh, hits.face, hits.xyz) * unevenness(surfaces, part, hits.xyz)[:, None]
    exposure = 255.0 * np.exp(rng.normal(0.15, 0.15)) * rng.uniform(0.95, 1.05, 3)
    shaded = albedo * light[:, None] * exposure
    shaded = shaded + rng.normal(0.0, settings.color_noise, shaded.shape)

    z = np.zeros(h * w)
    z[hits.pixel] = hits.z
    color, parts = np.zeros((h * w, 3), np.uint8), np.full(h * w, -1)
    color[hits.pixel], parts[hits.pixel] = to_uint8(shaded), part
    keep = np.zeros(h * w, bool)
    keep[hits.pixel] = hits.cosine > rng.uniform(0.08, 0.2)
    lost = np.zeros(h * w)
    lost[hits.pixel] = surfaces.lost[part]

    depth = measured(rng, z.reshape(h, w), noise)
    missing = smooth_noise(rng, (h, w), 8) < lost.reshape(h, w) * 1.3 + rng.uniform(0.0, 0.06)
    depth[missing | ~keep.reshape(h, w) | (depth < NEAREST)] = 0
    return SensorFrame(color.reshape(h, w, 3), depth, parts.reshape(h, w))


def unevenness(surfaces: Surfaces, part: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """(M,) factor of brightness at points of parts: stains, shadows, wear."""
    waves = surfaces.waves[part]  # (M, K, 4)
    # 1 + s Σ sin(k · x + φ)
    phase = np.einsum('mki,mi->mk', waves[..., :3], xyz) + waves[..., 3]
    return np.clip(1.0 + surfaces.strength[part] * np.sin(phase).sum(axis=1), 0.2, 1.6)


def measured(rng: np.random.Generator, depth: np.ndarray, noise: float) -> np.ndarray:
    """True depth (H, W) → measured: white and smooth noise that grow with z², flying pixels."""
    window = np.ones((3, 3), np.uint8)
    near, far = cv2.erode(depth, window), cv2.dilate(depth, window)
    flying = (far - near > 0.05) & (rng.random(depth.shape) < 0.3)
    mixed = np.where(flying, near + rng.random(depth.shape) * (far - near), depth)

    smooth = smooth_noise(rng, depth.shape, 24) - 0.5
    white = rng.normal(0.0, noise, depth.shape)
    return np.maximum(mixed + mixed**2 * (white + 5.0 * noise * smooth), 0.0)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell: int) -> np.ndarray:
    """(H, W) in 0…1, changing over so many pixels."""
    h, w = shape
    coarse = rng.random((h // cell + 2, w // cell + 2)).astype(np.float32)
    return cv2.resize(coarse, (w, h), interpolation=cv2.INTER_LINEAR).astype(np.float64)
