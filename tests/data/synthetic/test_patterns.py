"""The promise of the rooms: within a pattern group, points are at chance and images are not.

Letters: I instances, M samples.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from oneformer3d.data.synthetic import RoomSettings
from oneformer3d.data.synthetic.classes import SYNTHETIC_PATTERN_GROUPS, raw_id
from oneformer3d.data.synthetic.fuse import LabelledCloud, fuse_frames
from oneformer3d.data.synthetic.layout import make_room
from oneformer3d.data.synthetic.mesh import join_objects
from oneformer3d.data.synthetic.render import RenderedFrame, render_room
from oneformer3d.data.synthetic.textures import class_material, material_table, surface_color

NONE = (0, 0)
SETTINGS = RoomSettings(
    num_doors=NONE,
    num_beds=NONE,
    num_sofas=NONE,
    num_bookshelves=NONE,
    num_chairs=NONE,
    num_lamps=NONE,
    num_clutter=NONE,
    num_panels=(7, 7),
    num_boxes=(4, 4),
    num_tables=(3, 3),
    num_views=8,
)
NUM_ROOMS = 6
PATCH = 24


@dataclass(frozen=True)
class Rooms:
    """Scans of the same rooms: images, clouds as made, clouds with exact colours."""

    frames: list[list[RenderedFrame]]
    clouds: list[LabelledCloud]
    exact_clouds: list[LabelledCloud]


@pytest.fixture(scope='module')
def rooms():
    frames, clouds, exact = [], [], []
    for seed in range(NUM_ROOMS):
        rng = np.random.default_rng(seed)
        room = make_room(rng, SETTINGS)
        views, intrinsics = render_room(rng, room, join_objects(room.objects), SETTINGS)
        frames.append(views)
        for fused, misalignment in ((clouds, SETTINGS.color_misalignment), (exact, 0.0)):
            settings = replace(SETTINGS, color_misalignment=misalignment)
            fused.append(fuse_frames(rng, views, intrinsics, settings))
    return Rooms(frames, clouds, exact)


def cross_validated(classifier, samples):
    """Balanced accuracy on rooms not trained on; samples are (feature, class, room)."""
    features, classes, room = (np.array(column) for column in zip(*samples, strict=True))
    predicted = cross_val_predict(classifier, features, classes, groups=room, cv=GroupKFold(3))
    return balanced_accuracy_score(classes, predicted)


def single_points(clouds, raw_ids):
    """Height and colour of single points."""
    return [
        (cloud.points[i, 2:], cloud.semantic[i], room)
        for room, cloud in enumerate(clouds)
        for i in np.flatnonzero(np.isin(cloud.semantic, raw_ids))
    ]


def neighborhoods(clouds, raw_ids):
    """How brightness agrees between neighbours of an instance, by their vertical and horizontal
    distance in steps of two centimetres."""
    samples = []
    for room, cloud in enumerate(clouds):
        for instance_id in np.unique(cloud.instance[np.isin(cloud.semantic, raw_ids)]):
            here = cloud.instance == instance_id
            if here.sum() < 60:
                continue
            xyz, gray = cloud.points[here, :3], cloud.points[here, 3:].mean(axis=1)
            gray = (gray - gray.mean()) / gray.std()
            a, b = cKDTree(xyz).query_pairs(0.1, output_type='ndarray').T
            offset = xyz[a] - xyz[b]
            rise = (np.abs(offset[:, 2]) / 0.02).astype(int)
            run = (np.linalg.norm(offset[:, :2], axis=1) / 0.02).astype(int)
            cell = 6 * rise + run
            total = np.bincount(cell, gray[a] * gray[b], minlength=36)
            count = np.bincount(cell, minlength=36)
            samples.append((total / np.maximum(count, 5), cloud.semantic[here][0], room))
    return samples


def image_patches(frames, raw_ids):
    """Energy of the spectrum by direction and frequency of patches of each view of an object."""
    y, x = np.mgrid[-PATCH // 2 : PATCH // 2, -PATCH // 2 : PATCH // 2]
    direction = (np.arctan2(y, x) % np.pi / np.pi * 8).astype(int) % 8
    ring = np.digitize(np.hypot(x, y), (1.5, 3, 4.5, 7, 10))
    window = np.outer(np.hanning(PATCH), np.hanning(PATCH))
    rng = np.random.default_rng(0)
    samples = []
    for room, views in enumerate(frames):
        for frame in views:
            for instance_id in np.unique(frame.instance[np.isin(frame.semantic, raw_ids)]):
                mask = frame.instance == instance_id
                centers = np.argwhere(binary_erosion(mask, np.ones((PATCH, PATCH))))
                if not len(centers):
                    continue
                for v, u in rng.choice(centers, 3) - PATCH // 2:
                    gray = frame.color[v : v + PATCH, u : u + PATCH].mean(axis=2)
                    spectrum = np.fft.fftshift(np.fft.fft2((gray - gray.mean()) * window))
                    energy = np.abs(spectrum).ravel() ** 2
                    energy = np.bincount((8 * ring + direction).ravel(), energy, 48)[8:]
                    samples.append(
                        (np.log(energy / energy.sum() + 1e-3), frame.semantic[mask][0], room)
                    )
    return samples


def forest():
    return RandomForestClassifier(200, class_weight='balanced', random_state=0)


@pytest.mark.parametrize('group', SYNTHETIC_PATTERN_GROUPS)
def test_single_colours_of_many_materials_are_at_chance(group):
    rng = np.random.default_rng(0)
    features, classes, materials = [], [], []
    for label, name in enumerate(group):
        table = material_table([class_material(rng, name) for _ in range(3000)])
        uv = rng.uniform(0, 1, (3000, 2)).astype(np.float32)
        features.append(surface_color(table, np.arange(3000), uv))
        classes.append(np.full(3000, label))
        materials.append(np.arange(3000))
    samples = list(zip(*(np.concatenate(c) for c in (features, classes, materials)), strict=True))
    chance = 1 / len(group)
    booster = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    # 3000 samples per class: standard deviation below 0.01
    assert cross_validated(booster, samples) < chance + 0.03
    assert cross_validated(KNeighborsClassifier(15), samples) < chance + 0.03


def chance_limit(rooms, raw_ids):
    """Accuracy that guessing whole instances exceeds by luck once in forty times."""
    num_instances = sum(
        len(np.unique(cloud.instance[np.isin(cloud.semantic, raw_ids)])) for cloud in rooms.clouds
    )
    chance = 1 / len(raw_ids)
    return chance + 2 * np.sqrt(chance * (1 - chance) / num_instances)


@pytest.mark.parametrize('group', SYNTHETIC_PATTERN_GROUPS)
def test_single_points_are_near_chance_and_image_patches_are_not(rooms, group):
    raw_ids = [raw_id(name) for name in group]
    limit = chance_limit(rooms, raw_ids)
    assert limit < 0.75
    booster = HistGradientBoostingClassifier(max_iter=50, class_weight='balanced', random_state=0)
    assert cross_validated(booster, single_points(rooms.clouds, raw_ids)) < limit
    assert cross_validated(forest(), image_patches(rooms.frames, raw_ids)) > limit


def test_neighbouring_points_are_near_chance_unless_colours_are_exact(rooms):
    for group in SYNTHETIC_PATTERN_GROUPS[:2]:  # upright, so the features know their directions
        raw_ids = [raw_id(name) for name in group]
        limit = chance_limit(rooms, raw_ids)
        assert cross_validated(forest(), neighborhoods(rooms.clouds, raw_ids)) < limit
        assert cross_validated(forest(), neighborhoods(rooms.exact_clouds, raw_ids)) > limit
