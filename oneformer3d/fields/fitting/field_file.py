"""The file of a fitted field: tensors, numbers and text only, and read as such.

Enters: a ``FittedField`` and perhaps the states of its training, or a file. Leaves: the other.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneformer3d.files.checkpoints import read_checkpoint, write_checkpoint
from oneformer3d.store import StoreStamp, stamp_from_dict
from oneformer3d.visualization.features import PcaColors

from ..networks.field import Field
from ..networks.scene_box import SceneBox
from ..rendering.occupancy import OccupancyGrid
from ..rendering.proposals import ProposalSampler
from ..scene.extent import Observations
from .fitted import FittedField
from .recipe import build_field, build_proposals
from .settings import FitSettings, make_fit_settings

CHECKPOINT_NAME = 'field.pth'
FORMAT = 'neural field'
FORMAT_VERSION = 1


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
        'stamps': {kind: stamp.to_dict() for kind, stamp in fitted.stamps.items()},
        'language_stamp': _unless_none(StoreStamp.to_dict, fitted.language_stamp),
        'language_scales': list(fitted.language_scales),
        'image_size': _unless_none(list, fitted.image_size),
        'geometry': fitted.geometry,
        # what was found out
        'observations': _unless_none(Observations.state, fitted.observations),
        'occupancy': _unless_none(lambda grid: grid.occupied, fitted.occupancy),
        'proposals': _unless_none(ProposalSampler.state_dict, fitted.proposals),
        'exposure': _unless_none(Tensor.detach, fitted.exposure),
        'poses': _unless_none(Tensor.detach, fitted.poses),
        'colors': {head: _tensors(colors) for head, colors in fitted.colors.items()},
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

    def stamp(values: dict[str, Any]) -> StoreStamp:
        return stamp_from_dict(values, str(path))

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
            stamps={kind: stamp(values) for kind, values in file['stamps'].items()},
            language_stamp=_unless_none(stamp, file['language_stamp']),
            language_scales=tuple(file['language_scales']),
            # what was found out
            observations=_unless_none(Observations.from_state, file['observations']),
            occupancy=_unless_none(lambda o: OccupancyGrid(o).to(device), file['occupancy']),
            proposals=_read_proposals(file.get('proposals'), settings, net, device),
            exposure=file['exposure'],
            # files of earlier fields have none of the four
            poses=file.get('poses'),
            image_size=_unless_none(tuple, file.get('image_size')),
            geometry=file.get('geometry', {}),
            colors={head: _colors(state) for head, state in file.get('colors', {}).items()},
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
    return _with_types(checkpoint)


def _with_types(file: dict[str, Any]) -> dict[str, Any]:
    """The file; in earlier ones features had no type and all were taken for CLIP's."""
    if 'stamps' in file or 'recipe' not in file:
        return file
    width = file['recipe'].get('feature_dim')
    stamp = file.get('stamp')
    return {
        **file,
        'recipe': {**file['recipe'], 'features': {'CLIP': width} if width else {}},
        'stamps': {} if stamp is None else {'CLIP': stamp},
    }


def _tensors(colors: PcaColors) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in colors.state().items()}


def _colors(state: Mapping[str, Tensor]) -> PcaColors:
    return PcaColors.from_state({name: value.numpy() for name, value in state.items()})


def _unless_none(convert: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else convert(value)
