"""A generated room walked through, coloured by object, and a segmentor that reads the colours.

A pixel of object i of class c has colour (8 i, 16 c, 0), the rest of the room is black. The
segmentor is a real ``OneFormer3D``: its encoder gives a point its colour, its decoder makes a mask
of all superpoints of one colour. So the right answer for every frame is known, while points,
superpoints, the map, the pipeline and the merging are those of a true run.
"""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from oneformer3d.data.synthetic.scan import generate_scene
from oneformer3d.data.synthetic.settings import RoomSettings
from oneformer3d.registry import MODELS
from oneformer3d.streaming.frames import StreamFrame
from oneformer3d.structures.contracts import MaskDecoder, PointEncoder
from oneformer3d.structures.records import PointFeatures

NUM_CLASSES = 3
SETTINGS = RoomSettings(
    room_width=(3.0, 3.0),
    room_depth=(3.0, 3.0),
    num_doors=(0, 0),
    num_panels=(2, 2),
    num_boxes=(1, 1),
    num_bookshelves=(0, 0),
    num_beds=(0, 0),
    num_tables=(1, 1),
    num_chairs=(2, 2),
    num_lamps=(0, 0),
    num_clutter=(0, 0),
    num_views=15,
    image_size=(60, 80),
    field_of_view=(70.0, 70.0),
    point_spacing=0.1,
)


def room_frames(seed: int = 0) -> list[StreamFrame]:
    """15 frames of a room, coloured by object."""
    scan = generate_scene(seed, SETTINGS)
    frames = []
    for index, view in enumerate(scan.frames):
        instance = view.instance.astype(int)
        color = np.stack([8 * instance, 16 * (1 + instance % NUM_CLASSES), 0 * instance], axis=2)
        color[instance == 0] = 0
        depth = view.depth.astype(np.float32) / 1000
        matrices = (scan.intrinsics, scan.intrinsics, view.world_from_cam)
        frames.append(StreamFrame(index, depth, color.astype(np.uint8), *matrices, f'{index:06d}'))
    return frames


def write_room(folder: Path, frames: list[StreamFrame]) -> Path:
    """Frames as 7-Scenes names them, colours without loss."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / 'camera-intrinsics.txt', frames[0].intrinsics)
    for frame in frames:
        stem = f'{folder}/frame-{frame.index:06d}'
        Image.fromarray(frame.color).save(f'{stem}.color.png')
        millimetres = np.round(1000 * frame.depth).astype(np.uint16)
        Image.fromarray(millimetres).save(f'{stem}.depth.png')
        np.savetxt(f'{stem}.pose.txt', frame.world_from_cam)
    return folder


def objects_of(points: NDArray) -> NDArray[np.int64]:
    """Object (N,) of points (N, 6) by their colours, 0 none."""
    return np.rint(points[:, 3] / 8).astype(np.int64)


@MODELS.register_module(force=True)
class ColorPointEncoder(PointEncoder):
    """The feature of a point is its colour, (r, g, b, 1)."""

    def forward(self, inputs, data_samples=None):
        rgb = torch.cat([points[:, 3:6] for points in inputs['points']]) * 127.5 + 127.5
        sizes = tuple(len(points) for points in inputs['points'])
        return PointFeatures(
            torch.cat([rgb, torch.ones_like(rgb[:, :1])], dim=1), torch.arange(len(rgb)), sizes
        )


@MODELS.register_module(force=True)
class ColorDecoder(MaskDecoder):
    """One query for every superpoint; its mask is all superpoints of its colour."""

    def __init__(self) -> None:
        super().__init__()
        self.num_instance_classes = NUM_CLASSES
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, features, queries=None, keep_aux=True, scenes=None):
        outputs = {'cls_preds': [], 'sem_preds': [], 'masks': []}
        for rgb in features:
            thing = torch.round(rgb[:, 0] / 8).long()
            label = (torch.round(rgb[:, 1] / 16).long() - 1).clamp(0, NUM_CLASSES - 1)
            there = thing > 0

            # the first superpoint of each object asks for it, the others for nothing
            first = torch.zeros_like(there)
            for k in thing[there].unique():
                first[torch.nonzero(thing == k)[0, 0]] = True
            cls = torch.full((len(rgb), NUM_CLASSES + 1), -8.0)
            cls[:, -1] = 8.0
            cls[first, label[first]] = 12.0
            outputs['cls_preds'].append(cls)
            outputs['masks'].append(torch.where(thing[:, None] == thing[None], 9.0, -9.0))

            semantic = torch.full((len(rgb), NUM_CLASSES + 2), -5.0)
            semantic[torch.arange(len(rgb)), torch.where(there, label + 1, 0)] = 5.0
            outputs['sem_preds'].append(semantic)
        return {**outputs, 'scores': None, 'aux_outputs': None}


def write_color_model(folder: Path) -> tuple[Path, Path]:
    """Config and weights of a segmentor that reads the colours."""
    model = {
        'type': 'OneFormer3D',
        'encoder': {'type': 'ColorPointEncoder'},
        'decoder': {'type': 'ColorDecoder'},
        'criterion': {'type': 'ColorCriterion'},
        'num_semantic_classes': 1 + NUM_CLASSES,
        'stuff_classes': [0],
        'test_cfg': {'topk_insts': 50, 'npoint_thr': 5},
    }
    return _write(folder, model, 1 + NUM_CLASSES)


@MODELS.register_module(force=True)
class ColorCriterion(torch.nn.Module):
    """Nothing is trained."""


def _write(folder: Path, model: dict, num_classes: int) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / 'table.json'
    names = ['room', *(f'thing {k}' for k in range(1, num_classes))]
    table.write_text(json.dumps({'classes': names, 'stuff': names[:1]}))
    config = folder / 'config.py'
    config.write_text(
        "custom_imports = dict(imports=['tests.helpers.stream_rooms'])\n"
        f'model = {model!r}\n'
        'test_dataloader = dict(dataset=dict(\n'
        f"    type='IndoorSegDataset', class_table={str(table)!r},\n"
        "    pipeline=[dict(type='LoadScenePoints'), dict(type='LoadSceneAnnotations'),\n"
        "              dict(type='NormalizeColor'), dict(type='PackSceneInputs')]))\n"
    )
    weights = folder / 'weights.pth'
    torch.save({'state_dict': MODELS.build(model).state_dict()}, weights)
    return config, weights
