"""Which of the shipped configs describes the model that a checkpoint is of.

Enters: a state dict. Leaves: the configs whose model takes it strictly, the published ones first,
and in which layout its sparse convolutions are. Nothing is computed: models are built without
memory for their weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from oneformer3d.engine.configs import load_config
from oneformer3d.files.shipped import shipped_folder
from oneformer3d.registry import MODELS
from oneformer3d.segmentor.weights import adapt_layouts, differences

# the layouts of a sparse convolution: as spconv's modules hold it, and as published files do
MODULES, PUBLISHED = 'modules', 'published'
_FIRST = ('oneformer3d_scannet', 'oneformer3d_scannet200', 'oneformer3d_s3dis', 'rooms_points')


@dataclass(frozen=True)
class KnownModel:
    """A config whose model takes a checkpoint.

    Attributes:
        config: as ``find_config`` takes it, ``configs/NAME.py``.
        class_table: of its data.
        layout: 'modules', 'published', or 'none' where there are no sparse convolutions of five
            axes.
        weights: of the checkpoint by name, in the layout 'modules'.
    """

    config: str
    class_table: str
    layout: str
    weights: Mapping[str, Tensor]


def identify(state_dict: Mapping[str, Tensor]) -> list[KnownModel]:
    """The shipped configs whose model takes a state dict; there may be several.

    Raises:
        ValueError: none does; says what was found and which one is nearest.
    """
    known, faults = [], []
    for path in model_configs():
        config = load_config(path)
        if 'clip' in config.model.get('encoder', {}):
            continue  # with CLIP inside it cannot be built without that CLIP's weights
        init_default_scope(config.get('default_scope', 'mmdet3d'))
        with torch.device('meta'):
            model = MODELS.build(config.model)

        fault = _what_differs(state_dict, model)
        if fault:
            num_others = len(state_dict.keys() ^ model.state_dict().keys())
            faults.append((num_others, path.name, fault))
            continue
        weights = adapt_layouts(state_dict, model)
        dataset = config.test_dataloader.dataset
        layout = _layout_of(state_dict, weights)
        known.append(KnownModel(f'configs/{path.name}', dataset.class_table, layout, weights))

    if known:
        return known
    _, nearest, fault = min(faults)
    first = ', '.join(repr(name[:60]) for name in list(state_dict)[:2])
    raise ValueError(
        f'{len(state_dict)} tensors ({first}, …) of no model that a shipped config describes; the '
        f'nearest is configs/{nearest}: {fault}'
    )


def model_configs() -> list[Path]:
    """Configs of models that can be trained, those with published or shipped weights first."""
    paths = sorted((shipped_folder() / 'configs').glob('*.py'))
    places = {name: place for place, name in enumerate(_FIRST)}
    return sorted(paths, key=lambda path: places.get(path.stem, len(places)))


def _what_differs(state_dict: Mapping[str, Tensor], model: nn.Module) -> str:
    """Why the model does not take the weights, '' if it does."""
    try:
        return '; '.join(differences(adapt_layouts(state_dict, model), model))
    except ValueError as error:
        return str(error)


def _layout_of(given: Mapping[str, Tensor], adapted: Mapping[str, Tensor]) -> str:
    """How the sparse convolutions of a file lay before they were adapted."""
    kernels = [name for name, value in adapted.items() if value.ndim == 5]
    if not kernels:
        return 'none'
    moved = any(given[name].shape != adapted[name].shape for name in kernels)
    return PUBLISHED if moved else MODULES
