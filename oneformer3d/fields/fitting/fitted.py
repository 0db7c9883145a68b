"""A fitted field with all that belongs to it.

Enters: a network and what was found out about its scene. Leaves: ``FittedField``: the network, what
its classes are called, whose features it learnt, and what its views observed.

Letters: V views, C classes, D width of features or language.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from oneformer3d.store import StoreStamp
from oneformer3d.visualization.features import PcaColors

from ..networks.feature_field import FeatureField
from ..networks.field import Field
from ..networks.scene_box import SceneBox
from ..rendering.occupancy import OccupancyGrid
from ..rendering.proposals import ProposalSampler
from ..scene.extent import Observations
from .recipe import build_field
from .settings import FitSettings


@dataclass(eq=False)
class FittedField:
    """A field of one scene.

    Attributes:
        field: the network; its scene box is part of it.
        settings: it was fitted with.
        recipe: what it is built from, see ``build_field``.
        scene: name.
        frames, held_out: names of the V views it learnt from, and of those it was measured on.
        class_names: C names.
        palette: (C, 3) uint8.
        things: classes with instances.
        stamps: of the features, by their type.
        language_stamp: of the language, None without.
        language_scales: crop sides it was fitted with.
        image_size: (H, W) of the images it learnt from, None where they were not kept.
        geometry: how the first learnt view was read, see ``view_geometry``; empty where it was not
            kept.
        observations: what the views observed; None answers everywhere.
        occupancy: where there may be matter; None for everywhere.
        proposals: networks that place samples; None where others do.
        exposure: (V, 3) logarithm of the gain of each learnt view, None where none was learnt.
        poses: (V, 6) corrections of the learnt cameras, see ``pose_corrections``; None where they
            are taken as they are.
        colors: how values of a head are drawn, by its name; fitted once, so that every picture
            has the same.
        step: of the optimiser.
        report: measurements.
    """

    field: Field
    settings: FitSettings
    recipe: dict[str, Any]

    # the scene it is of
    scene: str = 'scene'
    frames: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    palette: NDArray[np.uint8] | None = None
    things: tuple[int, ...] = ()
    stamps: Mapping[str, StoreStamp] = dataclasses.field(default_factory=dict)
    language_stamp: StoreStamp | None = None
    language_scales: tuple[float, ...] = ()
    image_size: tuple[int, int] | None = None
    geometry: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    # what was found out about it
    observations: Observations | None = None
    occupancy: OccupancyGrid | None = None
    proposals: ProposalSampler | None = None
    exposure: Tensor | None = None
    poses: Tensor | None = None
    colors: dict[str, PcaColors] = dataclasses.field(default_factory=dict)
    step: int = 0
    report: dict[str, Any] = dataclasses.field(default_factory=dict)


def add_feature_head(
    fitted: FittedField, name: str, feature_dim: int, stamp: StoreStamp | None = None, **options
) -> FittedField:
    """The same field with one more head of features; everything else is frozen.

    Args:
        fitted: stays as it is.
        name: of the head, 'features' or 'features_<type>'.
        feature_dim: D.
        stamp: of the features it will learn.
        options: of ``FeatureField``; its ``feature_type`` says which features teach it.
    """
    if name != 'features' and not name.startswith('features_'):
        raise ValueError(f"a head of features is called 'features' or 'features_<type>': {name!r}")
    added = {'feature_dim': feature_dim, **options}
    net = build_field(fitted.recipe, SceneBox.identity())
    net.load_state_dict(fitted.field.state_dict())
    net.add_head(name, FeatureField(**added), freeze=True)

    stamps = {} if stamp is None else {net.head(name).feature_type: stamp}
    return replace(
        fitted,
        field=net.to(fitted.field.unit_from_world.device),
        recipe={**fitted.recipe, 'added': {**fitted.recipe['added'], name: added}},
        stamps={**fitted.stamps, **stamps},
    )
