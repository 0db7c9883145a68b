"""A fitted field with all that belongs to it, and its file.

Enters: a scene and settings, or a file. Leaves: ``FittedField``: the network, what its classes are
called, whose features it learnt, and which places its views saw. A file holds tensors, numbers and
text only, and is read as such.

Letters: C classes, D width of features or language.
"""

import dataclasses
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneformer3d.files.atomic import atomic_path
from oneformer3d.store.format import StoreStamp, stamp_from_dict

from ..networks.feature_field import FeatureField
from ..networks.field import Field
from ..networks.hash_field import HashGridField
from ..networks.mlp_field import LERF, PanopticNeRF, SemanticNeRF
from ..networks.scene_box import SceneBox
from ..rendering.occupancy import OccupancyGrid
from .fit_settings import FitSettings, make_fit_settings
from .observation import Observations

CHECKPOINT_NAME = 'field.pth'
FORMAT = 'neural field'
FORMAT_VERSION = 1


@dataclass(eq=False)
class FittedField:
    """A field of one scene.

    Attributes:
        field: the network; its scene box is part of it.
        settings: it was fitted with.
        recipe: what it is built from, see ``build_field``.
        scene: name.
        frames, held_out: names of the views it learnt from and was measured on.
        class_names: C names.
        palette: (C, 3) uint8.
        things: classes with instances.
        stamp: of the features, None without.
        language_stamp: of the language, None without.
        language_scales: crop sides it was fitted with.
        observations: what the views saw; None answers everywhere.
        occupancy: where there may be matter; None for everywhere.
        exposure: (V, 3) logarithm of the gain of each learnt view, None where none was learnt.
        step: of the optimiser.
        report: measurements.
    """

    field: Field
    settings: FitSettings
    recipe: dict[str, Any]
    scene: str = 'scene'
    frames: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    palette: np.ndarray | None = None
    things: tuple[int, ...] = ()
    stamp: StoreStamp | None = None
    language_stamp: StoreStamp | None = None
    language_scales: tuple[float, ...] = ()
    observations: Observations | None = None
    occupancy: OccupancyGrid | None = None
    exposure: Tensor | None = None
    step: int = 0
    report: dict[str, Any] = field(default_factory=dict)


def make_recipe(
    settings: FitSettings,
    num_classes: int = 0,
    feature_dim: int = 0,
    language_dim: int = 0,
) -> dict[str, Any]:
    """What ``build_field`` needs, as plain values.

    Args:
        settings: say which field and which heads.
        num_classes: C, 0 without labels.
        feature_dim: D of the features, 0 without.
        language_dim: D of the language, 0 without.

    Raises:
        ValueError: the method learns from something that the scene has not.
    """
    method = settings.method
    if method == 'panoptic' and not num_classes:
        raise ValueError('method panoptic needs labels; the scene has none')
    if method == 'feature_field' and not feature_dim:
        raise ValueError('method feature_field needs features; give a feature store')
    if method == 'lerf' and not language_dim:
        raise ValueError('method lerf needs language; give the weights of a CLIP')
    return {
        'field': settings.field,
        'method': method,
        'num_classes': num_classes,
        'feature_dim': feature_dim if method == 'feature_field' else 0,
        'language_dim': language_dim if method == 'lerf' else 0,
        'options': dict(settings.field_options),
        'added': {},
    }


def build_field(recipe: Mapping[str, Any], box: SceneBox | None = None) -> Field:
    """The network of a recipe with random weights.

    Raises:
        ValueError: options that the field does not have.
    """
    classes, options, method = recipe['num_classes'], dict(recipe['options']), recipe['method']
    feature_options = options.pop('features', {})
    instance_dim = options.pop('instance_dim', 8)
    try:
        if recipe['field'] == 'hash':
            if feature_options:
                options['feature_options'] = feature_options
            features = {'CLIP': recipe['feature_dim']} if recipe['feature_dim'] else None
            net: Field = HashGridField(
                classes,
                instance_dim if method == 'panoptic' else 0,
                features,
                language_dim=recipe['language_dim'],
                scene_box=box,
                **options,
            )
        elif method == 'panoptic':
            net = PanopticNeRF(classes, instance_feature_dim=instance_dim, scene_box=box, **options)
        elif method == 'lerf':
            width = recipe['language_dim']
            net = LERF(feature_dim=width, num_classes=max(classes, 1), scene_box=box, **options)
        else:
            net = SemanticNeRF(num_classes=max(classes, 1), scene_box=box, **options)
            if recipe['feature_dim']:
                head = FeatureField(recipe['feature_dim'], **feature_options)
                net.add_head('features', head, freeze=False)
        for name, added in recipe['added'].items():
            net.add_head(name, FeatureField(**added), freeze=True)
    except TypeError as error:
        raise ValueError(f'field_options: {error}') from error
    return net


def save_field(path: str | Path, fitted: FittedField, training: Mapping | None = None) -> None:
    """Write a field, atomically.

    Args:
        path: of the file.
        fitted: what to keep.
        training: states of the optimiser and the like, for ``fit.fit_field`` to go on from.
    """
    observations = fitted.observations
    checkpoint = {
        'format': FORMAT,
        'format_version': FORMAT_VERSION,
        'settings': fitted.settings.to_dict(),
        'recipe': fitted.recipe,
        'model': fitted.field.state_dict(),
        'palette': None if fitted.palette is None else torch.from_numpy(np.array(fitted.palette)),
        'observations': None if observations is None else observations.state(),
        'occupancy': None if fitted.occupancy is None else fitted.occupancy.occupied,
        'exposure': None if fitted.exposure is None else fitted.exposure.detach(),
        'report': fitted.report,
        'training': None if training is None else dict(training),
    }
    for name in ('scene', 'step'):
        checkpoint[name] = getattr(fitted, name)
    for name in ('frames', 'held_out', 'class_names', 'things', 'language_scales'):
        checkpoint[name] = list(getattr(fitted, name))
    for name in ('stamp', 'language_stamp'):
        stamp = getattr(fitted, name)
        checkpoint[name] = None if stamp is None else stamp.to_dict()
    with atomic_path(path) as temporary:
        torch.save(checkpoint, temporary)


def load_field(
    path: str | Path, device: torch.device | str = 'cpu'
) -> tuple[FittedField, dict | None]:
    """Read a field and, where they were kept, the states of its training.

    Args:
        path: of the file, or of the folder with ``field.pth``.
        device: of the network.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not the file of a field; names it.
    """
    path = Path(path)
    path = path / CHECKPOINT_NAME if path.is_dir() else path
    checkpoint = _read(path)
    try:
        net = build_field(checkpoint['recipe'], SceneBox.identity())
        net.load_state_dict(checkpoint['model'])
        observations, palette = checkpoint['observations'], checkpoint['palette']
        occupied = checkpoint['occupancy']
        fitted = FittedField(
            field=net.to(device).eval(),
            settings=make_fit_settings(None, checkpoint['settings']),
            recipe=checkpoint['recipe'],
            palette=None if palette is None else palette.numpy(),
            observations=None if observations is None else Observations.from_state(observations),
            occupancy=None if occupied is None else OccupancyGrid(occupied).to(device),
            exposure=checkpoint['exposure'],
            report=checkpoint['report'],
            scene=checkpoint['scene'],
            step=checkpoint['step'],
            **{
                name: tuple(checkpoint[name])
                for name in ('frames', 'held_out', 'class_names', 'things', 'language_scales')
            },
            **{
                name: None
                if checkpoint[name] is None
                else stamp_from_dict(checkpoint[name], str(path))
                for name in ('stamp', 'language_stamp')
            },
        )
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f'{path}: not a whole field: {" ".join(str(error).split())}') from error
    return fitted, checkpoint['training']


def add_feature_head(
    fitted: FittedField, name: str, feature_dim: int, stamp: StoreStamp | None = None, **options
) -> FittedField:
    """The same field with one more head of features; everything else is frozen.

    Args:
        fitted: stays as it is.
        name: of the head, 'features' or 'features_<type>'.
        feature_dim: D.
        stamp: of the features it will learn.
        options: of ``FeatureField``.
    """
    if name != 'features' and not name.startswith('features_'):
        raise ValueError(f"a head of features is called 'features' or 'features_<type>': {name!r}")
    added = {**fitted.recipe['added'], name: {'feature_dim': feature_dim, **options}}
    recipe = {**fitted.recipe, 'added': added}
    device = fitted.field.unit_from_world.device
    net = build_field({**recipe, 'added': fitted.recipe['added']}, SceneBox.identity())
    net.load_state_dict(fitted.field.state_dict())
    net.add_head(name, FeatureField(**added[name]), freeze=True)
    return dataclasses.replace(
        fitted, field=net.to(device), recipe=recipe, stamp=stamp or fitted.stamp
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such field')
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        OverflowError,
        zipfile.BadZipFile,
    ) as error:  # what a truncated or foreign file makes the reader raise
        raise ValueError(f'{path}: not a readable checkpoint ({type(error).__name__})') from error
    if not isinstance(checkpoint, dict) or checkpoint.get('format') != FORMAT:
        raise ValueError(f'{path}: not the file of a neural field')
    if checkpoint.get('format_version') != FORMAT_VERSION:
        raise ValueError(
            f'{path}: version {checkpoint.get("format_version")}, this program reads '
            f'{FORMAT_VERSION}'
        )
    return checkpoint
