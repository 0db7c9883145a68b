"""Shapes with materials and labels, joined to one triangle mesh that rays can be cast at.

A part is a trimesh in its object's local frame (origin on the floor at the back centre, x along
the width, y away from the wall, z up). ``join_objects`` gives every face the affine map from world
coordinates to its surface coordinates (u, v) in metres: u runs horizontally along upright faces
and v up, on level faces u and v are the object's x and y.

Letters: V vertices, F faces, P parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import trimesh

from .textures import Material, MaterialTable, material_table


@dataclass(frozen=True)
class Part:
    """A mesh in local coordinates and its material."""

    mesh: trimesh.Trimesh
    material: Material


@dataclass(frozen=True)
class SceneObject:
    """A placed object.

    Attributes:
        raw_id: class on disk, 0 = unlabeled.
        instance_id: 1…, 0 = no instance (stuff, clutter).
        parts: what it consists of.
        world_from_object: (4, 4) pose.
    """

    raw_id: int
    instance_id: int
    parts: tuple[Part, ...]
    world_from_object: np.ndarray


@dataclass(frozen=True)
class RoomMesh:
    """All faces of a room.

    Attributes:
        vertices: (V, 3) float64 metres.
        faces: (F, 3) int32.
        normals: (F, 3) float64 unit, on either side.
        uv_from_world: (F, 2, 4) float64, ``uv = A[:, :3] @ xyz + A[:, 3]``.
        part: (F,) int, row into the tables below.
        raw_ids, instance_ids: (P,) int labels of each part.
        materials: P materials.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    uv_from_world: np.ndarray
    part: np.ndarray
    raw_ids: np.ndarray
    instance_ids: np.ndarray
    materials: MaterialTable


def join_objects(objects: list[SceneObject]) -> RoomMesh:
    """Place all parts in the world and join them.

    Args:
        objects: placed objects, at least one part in total.

    Returns:
        The mesh of the room.
    """
    vertices, faces, normals, uv_maps, part, raw_ids, instance_ids, materials = (
        [] for _ in range(8)
    )
    num_vertices = 0
    for placed in objects:
        rotation, translation = placed.world_from_object[:3, :3], placed.world_from_object[:3, 3]
        for local in placed.parts:
            mesh = local.mesh
            local_normals = np.asarray(mesh.face_normals)
            # u = a · (x − t), so its map is [a, −a · t]
            axes = surface_axes(local_normals) @ rotation.T  # (F, 2, 3)
            offset = -axes @ translation  # (F, 2)
            uv_maps.append(np.concatenate([axes, offset[..., None]], axis=2))

            vertices.append(np.asarray(mesh.vertices) @ rotation.T + translation)
            faces.append(np.asarray(mesh.faces) + num_vertices)
            normals.append(local_normals @ rotation.T)
            part.append(np.full(len(mesh.faces), len(materials)))
            raw_ids.append(placed.raw_id)
            instance_ids.append(placed.instance_id)
            materials.append(local.material)
            num_vertices += len(mesh.vertices)

    return RoomMesh(
        vertices=np.concatenate(vertices),
        faces=np.concatenate(faces).astype(np.int32),
        normals=np.concatenate(normals),
        uv_from_world=np.concatenate(uv_maps),
        part=np.concatenate(part),
        raw_ids=np.array(raw_ids),
        instance_ids=np.array(instance_ids),
        materials=material_table(materials),
    )


def surface_axes(normals: np.ndarray) -> np.ndarray:
    """Directions of u and v on faces.

    Args:
        normals: (F, 3) unit normals in the object's frame.

    Returns:
        (F, 2, 3): level faces get x and y, upright ones the horizontal tangent and z.
    """
    axes = np.tile(np.eye(3)[:2], (len(normals), 1, 1))
    upright = np.abs(normals[:, 2]) < 0.7
    tangent = np.stack([-normals[:, 1], normals[:, 0], np.zeros(len(normals))], axis=1)
    axes[upright, 0] = tangent[upright] / np.linalg.norm(tangent[upright], axis=1, keepdims=True)
    axes[upright, 1] = (0.0, 0.0, 1.0)
    return axes


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> trimesh.Trimesh:
    """Box between two corners."""
    least, most = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    return trimesh.creation.box(
        extents=most - least,
        transform=trimesh.transformations.translation_matrix((least + most) / 2),
    )


def frustum(
    radius_low: float,
    radius_high: float,
    z: tuple[float, float],
    center: tuple[float, float] = (0.0, 0.0),
    num_sides: int = 16,
) -> trimesh.Trimesh:
    """Upright cone segment; a cylinder when both radii are equal.

    Args:
        radius_low, radius_high: radii in metres at the two heights.
        z: lower and upper height.
        center: x, y of the axis.
        num_sides: facets around.
    """
    mesh = trimesh.creation.cylinder(radius=1.0, height=1.0, sections=num_sides)
    vertices = np.array(mesh.vertices)
    radius = np.where(vertices[:, 2] < 0, radius_low, radius_high)
    vertices[:, :2] = vertices[:, :2] * radius[:, None] + np.asarray(center)
    vertices[:, 2] = np.where(vertices[:, 2] < 0, *z)
    return trimesh.Trimesh(vertices, mesh.faces, process=False)


def pose(yaw: float, translation: Sequence[float] | np.ndarray) -> np.ndarray:
    """Pose of an object turned about the vertical.

    Args:
        yaw: radians.
        translation: metres.

    Returns:
        (4, 4) float64 ``world_from_object``.
    """
    world_from_object = np.eye(4)
    cos, sin = np.cos(yaw), np.sin(yaw)
    world_from_object[:2, :2] = (cos, -sin), (sin, cos)
    world_from_object[:3, 3] = translation
    return world_from_object
