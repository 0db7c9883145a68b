"""What the published systems compute and how they name it, as kept in ``tests/fixtures/published``.

- ``oneformer3d_reference()``: one small ScanNet-type model (``config``, ``state_dict``), two scenes
  (``points`` N×6, ``superpoints``) and the published system's values for them, every superpoint a
  query: voxels (``voxel_coords``, ``voxel_feats``, ``inverse``), ``sp_feats``, outputs per layer,
  predictions (``pred``), and losses (``loss``) for the labels in ``gt``.
- ``stm_reference()``: inputs and outputs of the STM sampling and mixing functions.
- ``published_settings()`` and ``published_parameters(name)``: the ``model`` settings, and names
  with shapes, of the published ScanNet, ScanNet200 and S3DIS models. ``live_shapes`` are as a
  spconv ≥ 2.2 module holds them, ``published_shapes`` as the released files do.
"""

import functools
import json
import lzma

import torch

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / 'tests' / 'fixtures' / 'published'


@functools.cache
def oneformer3d_reference() -> dict:
    """The reference values; a test that changes them must copy them first."""
    values = _load('oneformer3d_reference_values.pt.xz')
    for scene in values['pred']:
        for key, value in scene.items():
            scene[key] = [x.numpy() for x in value] if isinstance(value, list) else value.numpy()
    return values


@functools.cache
def stm_reference() -> list[dict]:
    return _load('stm_reference_values.pt.xz')


def published_settings() -> dict[str, dict]:
    return json.loads((FOLDER / 'published_model_settings.json').read_text())


def published_parameters(name: str) -> dict[str, dict[str, list[int]]]:
    return json.loads((FOLDER / f'oneformer3d_{name}_state_dict.json').read_text())


def _load(name: str) -> dict | list:
    with lzma.open(FOLDER / name) as file:
        return torch.load(file, weights_only=True)
