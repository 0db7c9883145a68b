"""A fitted field with all that belongs to it, and its file.

Enters: a scene and settings, or a file. Leaves: ``FittedField``: the network, what its classes are
called, whose features it learnt, and what its views observed. A file holds tensors, numbers and
text only, and is read as such.

Letters: V views, C classes, D width of features or language.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneformer3d.files.checkpoints import read_checkpoint, write_checkpoint
from oneformer3d.store import StoreStamp, stamp_from_dict

from ..networks.feature_field import FeatureField
from ..networks.field import Field
from ..networks.hash_field import HashGridField
from ..networks.mlp_field import LERF, PanopticNeRF, SemanticNeRF
from ..networks.scene_box import SceneBox
from ..rendering.occupancy import OccupancyGrid
from ..rendering.proposals import ProposalNetwork, ProposalSampler
from ..scene.extent import Observations
from .settings import FitSettings, make_fit_settings

CHECKPOINT_NAME = 'field.pth'
FORMAT = 'neural field'
FORMAT_VERSION = 1
# Finest cells of the proposal networks' grids along the box, the first round's and the last one's.
_PROPOSAL_RESOLUTIONS = (64, 128)


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
        stamp: of the features, None without.
        language_stamp: of the language, None without.
        language_scales: crop sides it was fitted with.
        observations: what the views observed; None answers everywhere.
        occupancy: where there may be matter; None for everywhere.
        proposals: networks that place samples; None where others do.
        exposure: (V, 3) logarithm of the gain of each learnt view, None where none was learnt.
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
    palette: np.ndarray | None = None
    things: tuple[int, ...] = ()
    stamp: StoreStamp | None = None
    language_stamp: StoreStamp | None = None
    language_scales: tuple[float, ...] = ()

    # what was found out about it
    observations: Observations | None = None
    occupancy: OccupancyGrid | None = None
    proposals: ProposalSampler | None = None
    exposure: Tensor | None = None
    step: int = 0
    report: dict[str, Any] = field(default_factory=dict)


def make_recipe(
    settings: FitSettings,
    num_classes: int = 0,
    feature_dim: int = 0,
    language_dim: int = 0,
) -> dict[str, Any]:
    """Collect what ``build_field`` needs, as plain values.

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
    """Build the network of a recipe with random weights.

    Raises:
        ValueError: options that the field does not have.
    """
    options = dict(recipe['options'])
    feature_options = options.pop('features', {})
    instance_dim = options.pop('instance_dim', 8)
    build = _hash_field if recipe['field'] == 'hash' else _mlp_field
    try:
        net = build(recipe, box, feature_options, instance_dim, options)
        for name, added in recipe['added'].items():
            net.add_head(name, FeatureField(**added), freeze=True)
    except TypeError as error:
        raise ValueError(f'field_options: {error}') from error
    return net


def _hash_field(
    recipe: Mapping[str, Any],
    box: SceneBox | None,
    feature_options: Mapping[str, Any],
    instance_dim: int,
    options: dict[str, Any],
) -> HashGridField:
    if feature_options:
        options = {**options, 'feature_options': feature_options}
    return HashGridField(
        recipe['num_classes'],
        instance_dim if recipe['method'] == 'panoptic' else 0,
        {'CLIP': recipe['feature_dim']} if recipe['feature_dim'] else None,
        language_dim=recipe['language_dim'],
        scene_box=box,
        **options,
    )


def _mlp_field(
    recipe: Mapping[str, Any],
    box: SceneBox | None,
    feature_options: Mapping[str, Any],
    instance_dim: int,
    options: dict[str, Any],
) -> SemanticNeRF:
    classes, method = recipe['num_classes'], recipe['method']
    options = {**options, 'scene_box': box}
    if method == 'panoptic':
        return PanopticNeRF(classes, instance_feature_dim=instance_dim, **options)

    # these two have classes even where nothing teaches them
    classes = max(classes, 1)
    if method == 'lerf':
        return LERF(feature_dim=recipe['language_dim'], num_classes=classes, **options)
    net = SemanticNeRF(num_classes=classes, **options)
    if recipe['feature_dim']:
        head = FeatureField(recipe['feature_dim'], **feature_options)
        net.add_head('features', head, freeze=False)
    return net


def build_proposals(settings: FitSettings, contracted: bool = False) -> ProposalSampler:
    """The networks that place samples, with random weights: finer from round to round."""
    first, last = _PROPOSAL_RESOLUTIONS
    counts = tuple(settings.proposal_samples)
    resolutions = np.geomspace(first, last, len(counts)).round().astype(int).tolist()
    networks = [ProposalNetwork(side, contracted=contracted) for side in resolutions]
    return ProposalSampler(
        networks, counts, settings.proposal_final, anneal_steps=max(1, settings.steps // 4)
    )


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
    added = {'feature_dim': feature_dim, **options}
    net = build_field(fitted.recipe, SceneBox.identity())
    net.load_state_dict(fitted.field.state_dict())
    net.add_head(name, FeatureField(**added), freeze=True)

    return replace(
        fitted,
        field=net.to(fitted.field.unit_from_world.device),
        recipe={**fitted.recipe, 'added': {**fitted.recipe['added'], name: added}},
        stamp=stamp or fitted.stamp,
    )


def save_field(path: str | Path, fitted: FittedField, training: Mapping | None = None) -> None:
    """Write a field, atomically.

    Args:
        path: of the file.
        fitted: what to write.
        training: states of the optimiser and the like, for ``loop.fit_field`` to go on from.
    """
    checkpoint = {
        'format': FORMAT,
        'format_version': FORMAT_VERSION,
        'training': _unless_none(dict, training),
        # what ``build_field`` makes the network of
        'settings': fitted.settings.to_dict(),
        'recipe': fitted.recipe,
        'model': fitted.field.state_dict(),
        # the scene
        'scene': fitted.scene,
        'frames': list(fitted.frames),
        'held_out': list(fitted.held_out),
        'class_names': list(fitted.class_names),
        'palette': _unless_none(lambda p: torch.from_numpy(np.array(p)), fitted.palette),
        'things': list(fitted.things),
        'stamp': _unless_none(StoreStamp.to_dict, fitted.stamp),
        'language_stamp': _unless_none(StoreStamp.to_dict, fitted.language_stamp),
        'language_scales': list(fitted.language_scales),
        # what was found out
        'observations': _unless_none(Observations.state, fitted.observations),
        'occupancy': _unless_none(lambda grid: grid.occupied, fitted.occupancy),
        'proposals': _unless_none(ProposalSampler.state_dict, fitted.proposals),
        'exposure': _unless_none(Tensor.detach, fitted.exposure),
        'step': fitted.step,
        'report': fitted.report,
    }
    write_checkpoint(path, checkpoint)


def load_field(
    path: str | Path, device: torch.device | str = 'cpu'
) -> tuple[FittedField, dict | None]:
    """Read a field and, where they were written, the states of its training.

    Args:
        path: of the file, or of the folder with ``field.pth``.
        device: of the network.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not the file of a field; names it.
    """
    path = Path(path)
    path = path / CHECKPOINT_NAME if path.is_dir() else path
    file = _read(path)

    def stamp(name: str) -> StoreStamp | None:
        return _unless_none(lambda values: stamp_from_dict(values, str(path)), file[name])

    try:
        net = build_field(file['recipe'], SceneBox.identity())
        net.load_state_dict(file['model'])
        settings = make_fit_settings(None, file['settings'])
        fitted = FittedField(
            net.to(device).eval(),
            settings,
            file['recipe'],
            # the scene
            scene=file['scene'],
            frames=tuple(file['frames']),
            held_out=tuple(file['held_out']),
            class_names=tuple(file['class_names']),
            palette=_unless_none(Tensor.numpy, file['palette']),
            things=tuple(file['things']),
            stamp=stamp('stamp'),
            language_stamp=stamp('language_stamp'),
            language_scales=tuple(file['language_scales']),
            # what was found out
            observations=_unless_none(Observations.from_state, file['observations']),
            occupancy=_unless_none(lambda o: OccupancyGrid(o).to(device), file['occupancy']),
            proposals=_read_proposals(file.get('proposals'), settings, net, device),
            exposure=file['exposure'],
            step=file['step'],
            report=file['report'],
        )
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f'{path}: not a whole field: {" ".join(str(error).split())}') from error
    return fitted, file['training']


def _read_proposals(
    state: dict[str, Tensor] | None, settings: FitSettings, net: Field, device: torch.device | str
) -> ProposalSampler | None:
    if state is None:
        return None
    proposals = build_proposals(settings, net.contracted)
    proposals.load_state_dict(state)
    return proposals.to(device)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such field')
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, dict) or checkpoint.get('format') != FORMAT:
        raise ValueError(f'{path}: not the file of a neural field')
    if checkpoint.get('format_version') != FORMAT_VERSION:
        version = checkpoint.get('format_version')
        raise ValueError(f'{path}: version {version}, this program reads {FORMAT_VERSION}')
    return checkpoint


def _unless_none(convert: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else convert(value)
