"""Samples with posed views, as the pipelines of the tests load them."""

import json
from pathlib import Path

from oneformer3d.data.samples.dataset import IndoorSegDataset
from oneformer3d.registry import TRANSFORMS
from oneformer3d.store import StoreStamp

LOAD = [{'type': 'LoadScenePoints'}, {'type': 'LoadSceneAnnotations'}]
AUGMENT = [{'type': 'RandomFlipBEV', 'prob_x': 1.0}, {'type': 'RandomRotScaleTrans'}]
PACK = [{'type': 'NormalizeColor'}, {'type': 'PackSceneInputs'}]
STAMP = StoreStamp(
    encoder='test',
    weights_digest='0',
    layer='last',
    mode='tokens',
    attn_mode='vanilla',
    input_size=(32, 32),
    dtype='float16',
    preprocessing='none',
    channels=4,
    grid=(6, 8),
)


def infos_of(root: Path) -> list[dict]:
    return json.loads((root / 'oneformer3d_infos_train.json').read_text())['data_list']


def dataset(root: Path, *transforms) -> IndoorSegDataset:
    return IndoorSegDataset(
        str(root),
        'oneformer3d_infos_train.json',
        'synthetic',
        pipeline=[t if callable(t) else TRANSFORMS.build(t) for t in (*LOAD, *transforms)],
    )


def views_of(root: Path, *transforms, index: int = 0):
    return dataset(root, *transforms)[index]['views']


def pair_set(pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.point.tolist(), pairs.view.tolist()))
