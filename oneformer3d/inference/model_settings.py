"""What an inferencer takes from the config of a model.

Enters: a config of training. Leaves: class table, the steps of the pipeline that a scan needs, the
spacing of the points, a device.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from mmengine.config import Config

from oneformer3d.data.class_tables import ClassTable, get_class_table

from .components import SOURCES, InstanceSource

# Steps of a test pipeline that read from disk or leave points out: the inferencer has the points
# already, and wants a label for each.
_DATASET_STEPS = ('LoadScenePoints', 'LoadSceneAnnotations', 'SamplePoints', 'LoadPosedViews')


def test_settings(config: Config, name: str) -> tuple[ClassTable, list[dict]]:
    """Class table of the test dataset, and its pipeline without what reads the dataset's files.

    Args:
        config: as the model was trained with; ``engine.tta.with_tta`` of it has the steps of
            ``tta_pipeline``.
        name: of the config, for messages.

    Raises:
        ValueError: The config lacks a model, or a test dataset with class table and pipeline.
    """
    dataset = config.get('test_dataloader', {}).get('dataset', {})
    if 'model' not in config or 'class_table' not in dataset or 'pipeline' not in dataset:
        raise ValueError(
            f'{name}: expected a model and a test_dataloader whose dataset has a class_table and '
            'a pipeline'
        )
    steps = [step for step in dataset['pipeline'] if step['type'] not in _DATASET_STEPS]
    return get_class_table(dataset['class_table']), steps


@dataclass(frozen=True)
class InferenceSettings:
    """How a model is asked: ``inference = dict(...)`` of its config.

    Attributes:
        instances: what instances are made of, see ``components``.
        tta: whether the network sees several views of a scan.
    """

    instances: InstanceSource = 'masks'
    tta: bool = False


def inference_settings(
    config: Config, name: str, instances: InstanceSource | None = None, tta: bool | None = None
) -> InferenceSettings:
    """What is wanted, else what the config says, else masks and one view.

    Raises:
        ValueError: an unknown source, or a config with other settings of inference.
    """
    settings = dict(config.get('inference') or {})
    unknown = sorted(set(settings) - {'instances', 'tta'})
    if unknown:
        raise ValueError(f'{name}: inference: unknown settings {unknown}')

    wanted = {'instances': instances, 'tta': tta}
    settings.update({key: value for key, value in wanted.items() if value is not None})
    chosen = InferenceSettings(**settings)
    if chosen.instances not in SOURCES:
        raise ValueError(f'instances: expected one of {SOURCES}, got {chosen.instances!r}')
    return chosen


def model_voxel_size(model: Mapping) -> float:
    """Edge in metres of the voxels of a model, or of the encoders within it; 0 if it has none."""
    if 'voxel_size' in model:
        return model['voxel_size']
    inner = [model[name] for name in ('encoder', 'encoder_3d') if name in model]
    return max(map(model_voxel_size, inner), default=0.0)


def pick_device(name: str | None) -> torch.device:
    """The device of that name; without a name a GPU where there is one, else the CPU."""
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except RuntimeError as error:
        raise ValueError(f'device: expected cpu, cuda or cuda:N, got {name!r}') from error
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f'device: {name} was asked for, but no CUDA device is available')
    return device
