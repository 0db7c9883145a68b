"""Seconds per stage of one training step and of prediction on a made-up room.

Each stage is run on detached inputs, so that its backward pass is timed apart from those of the
others: the sum is a training step without the optimiser. Sparse-convolution rulebooks are built
anew in every step, as training does for every scene. Shown is the median of several steps.

Any segmentor of points can be measured, of whatever classes. One that reads images gets views of
the room with random images and maps; its encoder is one stage, since only encoders of points alone
have voxels apart from the backbone.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from mmdet3d.structures import Det3DDataSample, PointData
from mmengine.config import Config
from torch import Tensor
from torch.utils.benchmark import timer

from oneformer3d.backbones.voxelize import pool_superpoints
from oneformer3d.lifting import project_pairs
from oneformer3d.registry import MODELS
from oneformer3d.segmentor.oneformer3d import OneFormer3D
from oneformer3d.segmentor.voxel_encoder import VoxelEncoder
from oneformer3d.stm.query_decoder import STMQueryDecoder
from oneformer3d.structures import (
    DecoderScene,
    PointFeatures,
    PosedViews,
    QueryOutput,
    map_outputs,
)
from tools.benchmarks._measure import add_integers, read_integers, take_turns
from tools.benchmarks._rooms import make_cameras

STAGES = ('voxelise', 'backbone', 'pool', 'decoder', 'criterion', 'post-process')
ONE_WAY = ('voxelise', 'post-process')  # stages without a backward pass
NUM_CLASSES, STUFF = 20, (0, 1)  # of the model without a configuration file
MAP_CHANNELS, MAP_SIZE, IMAGE_SIZE = 768, (14, 14), (240, 320)
OPTIONS = {
    'points': (100_000, 'points of the room'),
    'steps': (3, 'timed steps, after one to warm up'),
    'seed': (0, 'of the room and the weights'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the room and of the model."""
    add_integers(parser, OPTIONS)
    parser.add_argument('--config', type=Path, help='take the model of this configuration file')
    parser.add_argument('--voxel-size', type=float, help='metres; default: as configured, or 0.05')
    parser.add_argument('--views', type=int, default=4, help='of a model that reads images')
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument('--amp', action='store_true', help='half precision (float16), on cuda')


def run(args: argparse.Namespace) -> dict:
    """Measure, print a table and return the numbers.

    Returns:
        ``{'seconds': {stage: {'forward', 'backward'}}, 'spread', 'step_seconds',
        'predict_seconds', 'dominates', 'num_points', 'num_voxels', 'num_superpoints', 'device',
        'amp', 'num_threads', 'peak_gpu_bytes'}``, the last one None on a CPU.

    Raises:
        ValueError: a size below 1, no such device, or a model that is no ``OneFormer3D``.
        FileNotFoundError: no such configuration file.
    """
    read_integers(args, tuple(OPTIONS))
    if args.device != 'cpu' and not torch.cuda.is_available():
        raise ValueError(f'--device {args.device}: there is no CUDA device')
    if args.amp and args.device == 'cpu':
        raise ValueError('--amp: half precision is for --device cuda')

    torch.manual_seed(args.seed)
    model, map_channels = build_model(args.config, args.voxel_size)
    model.to(args.device)
    points, sample = make_room(args.points, model.num_semantic_classes, model.stuff_classes)
    inputs: dict = {'points': [points]}
    if map_channels is not None:
        inputs['views'] = [make_views(points, args.views, map_channels)]
    data = model.data_preprocessor({'inputs': inputs, 'data_samples': [sample]})

    measure_step(model, amp=args.amp, **data)
    step = take_turns({'': lambda: measure_step(model, amp=args.amp, **data)}, args.steps)['']
    seconds = {
        stage: {way: step[stage, way] for way in ('forward', 'backward') if (stage, way) in step}
        for stage in STAGES
        if (stage, 'forward') in step
    }
    totals = {stage: sum(ways.values()) for stage, ways in seconds.items()}
    predicting = [x for x in totals if x not in ('criterion', 'post-process')]
    result = {
        'seconds': seconds,
        'spread': step['spread'],
        'step_seconds': sum(totals.values()) - totals['post-process'],
        'predict_seconds': totals['post-process']
        + sum(seconds[stage]['forward'] for stage in predicting),
        'dominates': max([*predicting, 'criterion'], key=totals.get),
        'num_points': len(points),
        'num_voxels': count_voxels(model, **data),
        'num_superpoints': int(sample.gt_pts_seg.sp_pts_mask.max()) + 1,
        'device': args.device,
        'amp': args.amp,
        'peak_gpu_bytes': None if args.device == 'cpu' else torch.cuda.max_memory_allocated(),
        'num_threads': torch.get_num_threads(),
    }
    show(result)
    return result


def measure_step(
    model: OneFormer3D, inputs: dict, data_samples: list[Det3DDataSample], amp: bool = False
) -> dict[tuple[str, str], float]:
    """Seconds of every (stage, 'forward' | 'backward') of one step and one prediction."""
    seconds: dict[tuple[str, str], float] = defaultdict(float)

    @contextmanager
    def timed(stage: str, way: str = 'forward') -> Iterator[None]:
        start = timer()
        yield
        seconds[stage, way] += timer() - start

    model.train()
    model.zero_grad()
    device = inputs['points'][0].device.type
    with torch.autocast(device, torch.float16, enabled=amp):
        # The encoder of points alone ends at its voxels, any other at its points.
        if isinstance(model.encoder, VoxelEncoder):
            with timed('voxelise'):
                grid = model.encoder.voxelize(inputs)
            with timed('backbone'):
                encoded = [model.encoder.encode_voxels(grid)]  # (M, D)
            leaves = [_leaf(encoded[0])]
            with timed('pool'):
                voxels = grid.voxel_of_point
                points = PointFeatures(leaves[0][voxels], voxels, grid.num_points)
        else:
            with timed('backbone'):
                points = model.encoder(inputs, data_samples)
            encoded = [x for x in (points.features, points.without_views) if x is not None]
            leaves = [_leaf(x) for x in encoded]

        # Training decodes twice what knows its features without views.
        copies = len(leaves)
        with timed('backbone'):
            losses = model.encoder.auxiliary_losses(points, data_samples, model.iteration)
        superpoints = model.superpoints_of(points, data_samples)
        with timed('pool'):
            stacked = [points.features] if points.without_views is None else leaves
            pooled = [x for rows in stacked for x in pool_superpoints(rows, superpoints)]
        pooled_leaves = [_leaf(x) for x in pooled]

        with timed('criterion'):
            targets = model.build_targets(superpoints, data_samples) * copies
        with timed('decoder'):
            queries, targets = model.select_queries(pooled_leaves, targets)
            ids = [target.query_ids for target in targets]
            scenes = _scenes(inputs, points, superpoints, ids)
            outputs = model.decoder(pooled_leaves, queries, scenes=scenes)
        output_leaves = map_outputs(outputs, _leaf)
        with timed('criterion'):
            loss = sum(model.criterion(output_leaves, targets).values())

    with timed('criterion', 'backward'):
        loss.backward()
    with timed('decoder', 'backward'):
        _backward(_tensors(outputs), _tensors(output_leaves))
    with timed('pool', 'backward'):
        _backward(pooled, pooled_leaves)
    with timed('backbone', 'backward'):
        _backward(encoded, leaves, [x for x in losses.values() if x.requires_grad])

    with torch.no_grad():
        with torch.autocast(device, torch.float16, enabled=amp):
            features = [x.detach() for x in pooled[: len(superpoints)]]
            ids = [torch.arange(len(x), device=x.device) for x in features]
            ids = [None] * len(features) if model.decoder.learned_queries else ids
            outputs = model.decode(features, _scenes(inputs, points, superpoints, ids))
        with timed('post-process'):
            for i, superpoint_ids in enumerate(superpoints):
                model.postprocess(outputs, i, superpoint_ids)
    return seconds


def make_room(
    num_points: int, num_classes: int, stuff: Sequence[int], num_objects: int = 30
) -> tuple[Tensor, Det3DDataSample]:
    """A labelled room of 6 × 5 × 2.6 m with boxes on its floor, their surfaces evenly sampled.

    Superpoints are patches of 0.5 m of one surface; objects have random classes that are no stuff.
    """
    sizes = torch.rand(num_objects, 3) * 0.9 + 0.3
    corners = torch.rand(num_objects, 3) * (torch.tensor([6.0, 5.0, 0.0]) - sizes).clamp(min=0)
    sizes = torch.cat([torch.tensor([[6.0, 5.0, 2.6]]), sizes])
    corners = torch.cat([torch.zeros(1, 3), corners])

    # Six faces per box: the axis they are normal to, and the side.
    areas = torch.stack([sizes[:, (a + 1) % 3] * sizes[:, (a + 2) % 3] for a in range(3)], dim=1)
    face = torch.multinomial(areas.repeat_interleave(2, dim=1).flatten(), num_points, True)
    box, axis, side = face // 6, face % 6 // 2, face % 2
    unit = torch.rand(num_points, 3)
    unit[torch.arange(num_points), axis] = side.float()
    xyz = corners[box] + unit * sizes[box]

    is_floor = (box == 0) & (axis == 2) & (side == 0)
    others = torch.tensor([k for k in range(num_classes) if k not in stuff])
    classes = others[torch.randint(len(others), (len(sizes),))]
    shell = torch.where(is_floor, stuff[min(1, len(stuff) - 1)], stuff[0])
    semantic = torch.where(box == 0, shell, classes[box])  # (N,)

    # Patches have no order in space, as superpoints have none.
    patch = (xyz / 0.5).floor().long()
    key = ((face * 64 + patch[:, 0]) * 64 + patch[:, 1]) * 64 + patch[:, 2]
    sample = Det3DDataSample()
    sample.gt_pts_seg = PointData(
        sp_pts_mask=torch.unique(key, return_inverse=True)[1],
        pts_semantic_mask=semantic,
        pts_instance_mask=box - 1,
    )
    return torch.cat([xyz, torch.rand(num_points, 3) * 2 - 1], dim=1), sample


def make_views(points: Tensor, num_views: int, map_channels: int) -> PosedViews:
    """Views from the middle of the room, with random images and maps; nothing is occluded."""
    angles = 2 * math.pi * torch.arange(num_views) / num_views
    camera = make_cameras(angles, radius=-1.0, tilt=0.15, focal=215.0, image_size=IMAGE_SIZE)

    # Those cameras look along y; the room's z points up, so y becomes −z.
    world_from_cam = camera.world_from_cam.clone()
    turn = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    world_from_cam[:, :3] = turn @ world_from_cam[:, :3]
    world_from_cam[:, :3, 3] += torch.tensor([3.0, 2.5, 1.3])
    camera = replace(camera, world_from_cam=world_from_cam)

    return PosedViews(
        project_pairs(points[:, :3], camera),
        world_from_cam,
        IMAGE_SIZE,
        len(points),
        frames=tuple(f'{view:05d}' for view in range(num_views)),
        feat=torch.randn(num_views, map_channels, *MAP_SIZE),
        images=torch.randint(0, 256, (num_views, 3, *IMAGE_SIZE), dtype=torch.uint8),
        intrinsics=camera.intrinsics[0],
        augmented_from_original=torch.eye(4),
    )


def build_model(config: Path | None, voxel_size: float | None) -> tuple[OneFormer3D, int | None]:
    """A segmentor, and the channels of the maps it reads, None for a model of points alone."""
    if config is None:
        settings = _default_settings()
    elif config.is_file():
        settings = Config.fromfile(config).model
    else:
        raise FileNotFoundError(f'--config: no file {config}')

    if voxel_size is not None:
        settings = _with_voxel_size(settings, voxel_size)
    model = MODELS.build(settings)
    if not isinstance(model, OneFormer3D):
        raise ValueError(f'--config: expected a OneFormer3D, got {type(model).__name__}')
    if isinstance(model.encoder, VoxelEncoder) and not isinstance(model.decoder, STMQueryDecoder):
        return model, None
    return model, next(_values_of(settings, 'clip_channels'), MAP_CHANNELS)


def count_voxels(model: OneFormer3D, inputs: dict, data_samples: list[Det3DDataSample]) -> int:
    """Number of voxels that the points fill."""
    if isinstance(model.encoder, VoxelEncoder):
        return len(model.encoder.voxelize(inputs).coords)
    with torch.no_grad():
        return int(model.encoder(inputs, data_samples).voxel_of_point.max()) + 1


def _default_settings() -> dict:
    """A model for processors: half the published widths, 5 cm voxels, 3 decoder layers."""
    num_things = NUM_CLASSES - len(STUFF)
    costs = [
        {'type': 'QueryClassificationCost', 'weight': 0.5},
        {'type': 'MaskBCECost', 'weight': 1.0},
        {'type': 'MaskDiceCost', 'weight': 1.0},
    ]
    return {
        'type': 'ScanNetOneFormer3D',
        'in_channels': 6,
        'num_channels': 16,
        'voxel_size': 0.05,
        'num_classes': num_things,
        'min_spatial_shape': 128,
        'backbone': {'type': 'SpConvUNet', 'num_planes': [16, 32, 48, 64, 80]},
        'decoder': {
            'type': 'ScanNetQueryDecoder',
            'num_layers': 3,
            'num_instance_queries': 0,
            'num_semantic_queries': 0,
            'num_instance_classes': num_things,
            'num_semantic_classes': NUM_CLASSES,
            'in_channels': 16,
            'd_model': 128,
            'num_heads': 8,
            'hidden_dim': 512,
        },
        'criterion': {
            'type': 'ScanNetUnifiedCriterion',
            'num_semantic_classes': NUM_CLASSES,
            'sem_criterion': {
                'type': 'ScanNetSemanticCriterion',
                'ignore_index': NUM_CLASSES,
                'loss_weight': 0.2,
            },
            'inst_criterion': {
                'type': 'InstanceCriterion',
                'matcher': {'type': 'SparseMatcher', 'costs': costs, 'topk': 1},
                'loss_weight': [0.5, 1.0, 1.0, 0.5],
                'num_classes': num_things,
                'non_object_weight': 0.1,
            },
        },
        'test_cfg': {'stuff_classes': list(STUFF)},
    }


def _values_of(settings: Mapping, key: str) -> Iterator[int]:
    """Values of a key anywhere in nested settings, None left out."""
    for name, value in settings.items():
        if name == key and value is not None:
            yield value
        elif isinstance(value, Mapping):
            yield from _values_of(value, key)


def _with_voxel_size(settings: Mapping, voxel_size: float) -> dict:
    """Nested settings with another voxel size wherever they have one."""
    return {
        key: _with_voxel_size(value, voxel_size)
        if isinstance(value, Mapping)
        else (voxel_size if key == 'voxel_size' else value)
        for key, value in settings.items()
    }


def _scenes(
    inputs: dict, points: PointFeatures, superpoints: list[Tensor], query_ids: list[Tensor | None]
) -> list[DecoderScene]:
    """What the decoder is told of every sample, and of those decoded again without views."""
    none = [None] * len(superpoints)
    views = list(points.views or inputs.get('views') or none)
    copies = len(query_ids) // len(superpoints)
    rows = zip(
        list(inputs['points']) * copies,
        superpoints * copies,
        views + none * (copies - 1),
        query_ids,
    )
    return [DecoderScene(*row) for row in rows]


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()


def _tensors(outputs: QueryOutput) -> list[Tensor]:
    tensors: list[Tensor] = []
    map_outputs(outputs, lambda x: tensors.append(x) or x)
    return tensors


def _backward(outputs: list[Tensor], leaves: list[Tensor], losses: Sequence[Tensor] = ()) -> None:
    """Continue backward through ``outputs`` from the gradients their leaves received."""
    pairs = [(x, leaf.grad) for x, leaf in zip(outputs, leaves) if leaf.grad is not None]
    pairs += [(loss, None) for loss in losses]
    torch.autograd.backward([x for x, _ in pairs], [grad for _, grad in pairs])


def show(result: dict) -> None:
    """Print a line per stage."""
    print(
        f'{result["num_points"]} points, {result["num_voxels"]} voxels, '
        f'{result["num_superpoints"]} superpoints, {result["device"]}'
        f'{" in half precision" if result["amp"] else ""}, {result["num_threads"]} threads'
    )

    print(f'{"stage":<14}{"forward s":>11}{"backward s":>12}{"share of step":>15}')
    for stage, ways in result['seconds'].items():
        backward = f'{ways["backward"]:>12.3f}' if 'backward' in ways else f'{"":>12}'
        share = sum(ways.values()) / result['step_seconds']
        in_step = f'{share:>14.0%}' if stage != 'post-process' else ''
        print(f'{stage:<14}{ways["forward"]:>11.3f}{backward} {in_step}')

    print(
        f'training step {result["step_seconds"]:.2f} s, mostly {result["dominates"]}; '
        f'prediction {result["predict_seconds"]:.2f} s'
    )
    if result['peak_gpu_bytes'] is not None:
        print(f'most GPU memory held: {result["peak_gpu_bytes"] / 2**30:.2f} GiB')
