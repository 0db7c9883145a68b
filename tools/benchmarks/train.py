"""Seconds per stage of one training step and of prediction on a made-up room.

Each stage is run on detached inputs, so that its backward pass is timed apart from those of the
others: the sum is a training step without the optimiser. Sparse-convolution rulebooks are built
anew in every step, as training does for every scene. Shown is the median of several steps.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmdet3d.structures import Det3DDataSample, PointData
from mmengine.config import Config
from torch import Tensor

from oneformer3d.backbones.voxelize import pool_superpoints
from oneformer3d.registry import MODELS
from oneformer3d.segmentor.oneformer3d import OneFormer3D
from oneformer3d.segmentor.voxel_encoder import VoxelEncoder
from oneformer3d.structures import QueryOutput, map_outputs

STAGES = ('voxelise', 'backbone', 'pool', 'decoder', 'criterion', 'post-process')
NUM_CLASSES, NUM_STUFF = 20, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the room and of the model."""
    parser.add_argument('--config', type=Path, help='take the model of this configuration file')
    parser.add_argument('--points', type=int, default=100_000, help='points of the room')
    parser.add_argument('--voxel-size', type=float, help='metres; default: as configured, or 0.05')
    parser.add_argument('--steps', type=int, default=3, help='timed steps, after one to warm up')
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument('--amp', action='store_true', help='half precision (float16), on cuda')
    parser.add_argument('--seed', type=int, default=0, help='of the room and the weights')


def run(args: argparse.Namespace) -> dict:
    """Measure, print a table and return the numbers.

    Returns:
        ``{'seconds': {stage: {'forward', 'backward'}}, 'step_seconds', 'predict_seconds',
        'dominates', 'num_points', 'num_voxels', 'num_superpoints', 'device', 'amp', 'num_threads',
        'peak_gpu_bytes'}``, the last one None on a CPU.

    Raises:
        ValueError: a size below 1, no such device, or a model whose encoder is not of voxels.
        FileNotFoundError: no such configuration file.
    """
    for name in ('points', 'steps'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name} must be at least 1, got {getattr(args, name)}')
    if args.device != 'cpu' and not torch.cuda.is_available():
        raise ValueError(f'--device {args.device}: there is no CUDA device')
    if args.amp and args.device == 'cpu':
        raise ValueError('--amp: half precision is for --device cuda')
    torch.manual_seed(args.seed)
    model = _build_model(args.config, args.voxel_size).to(args.device)
    points, sample = make_room(args.points, NUM_CLASSES, NUM_STUFF)
    data = model.data_preprocessor({'inputs': {'points': [points]}, 'data_samples': [sample]})

    steps = [measure_step(model, amp=args.amp, **data) for _ in range(args.steps + 1)][1:]
    seconds = {
        stage: {way: statistics.median(s[stage, way] for s in steps) for way in ways}
        for stage, ways in _ways_of_stages().items()
    }
    totals = {stage: sum(ways.values()) for stage, ways in seconds.items()}
    grid = model.encoder.voxelize(data['inputs'])
    result = {
        'seconds': seconds,
        'step_seconds': sum(totals[stage] for stage in STAGES[:-1]),
        'predict_seconds': totals['post-process']
        + sum(seconds[stage]['forward'] for stage in STAGES[:-2]),
        'dominates': max(STAGES[:-1], key=totals.get),
        'num_points': len(points),
        'num_voxels': len(grid.coords),
        'num_superpoints': int(sample.gt_pts_seg.sp_pts_mask.max()) + 1,
        'device': args.device,
        'amp': args.amp,
        'peak_gpu_bytes': None if args.device == 'cpu' else torch.cuda.max_memory_allocated(),
        'num_threads': torch.get_num_threads(),
    }
    _print_table(result)
    return result


def measure_step(
    model: OneFormer3D, inputs: dict, data_samples: list[Det3DDataSample], amp: bool = False
) -> dict[tuple[str, str], float]:
    """Seconds of every (stage, 'forward' | 'backward') of one step and one prediction."""
    seconds: dict[tuple[str, str], float] = defaultdict(float)

    @contextmanager
    def timed(stage: str, way: str = 'forward') -> Iterator[None]:
        start = _now()
        yield
        seconds[stage, way] += _now() - start

    model.train()
    model.zero_grad()
    superpoints = [sample.gt_pts_seg.sp_pts_mask for sample in data_samples]
    device = inputs['points'][0].device.type
    with torch.autocast(device, torch.float16, enabled=amp):
        with timed('voxelise'):
            grid = model.encoder.voxelize(inputs)
        with timed('backbone'):
            voxel_features = model.encoder.encode_voxels(grid)
        voxel_leaf = _leaf(voxel_features)
        with timed('pool'):
            pooled = pool_superpoints(voxel_leaf[grid.voxel_of_point], superpoints)
        pooled_leaves = [_leaf(x) for x in pooled]
        with timed('criterion'):
            targets = model.build_targets(superpoints, data_samples)
        with timed('decoder'):
            queries, targets = model.select_queries(pooled_leaves, targets)
            outputs = model.decoder(pooled_leaves, queries)
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
        _backward([voxel_features], [voxel_leaf])

    with torch.no_grad():
        with torch.autocast(device, torch.float16, enabled=amp):
            outputs = model.decode([x.detach() for x in pooled])
        with timed('post-process'):
            for i, ids in enumerate(superpoints):
                model.postprocess(outputs, i, ids)
    return seconds


def make_room(
    num_points: int, num_classes: int, num_stuff: int, num_objects: int = 30
) -> tuple[Tensor, Det3DDataSample]:
    """A labelled room of 6 × 5 × 2.6 m with boxes on its floor, their surfaces evenly sampled.

    Superpoints are patches of 0.5 m of one surface; objects have random classes above the stuff.
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
    classes = torch.randint(num_stuff, num_classes, (len(sizes),))
    semantic = torch.where(box == 0, is_floor.long(), classes[box])
    patch = (xyz / 0.5).floor().long()
    key = ((face * 64 + patch[:, 0]) * 64 + patch[:, 1]) * 64 + patch[:, 2]
    # Patches have no order in space, as superpoints have none.
    sample = Det3DDataSample()
    sample.gt_pts_seg = PointData(
        sp_pts_mask=torch.unique(key, return_inverse=True)[1],
        pts_semantic_mask=semantic,
        pts_instance_mask=box - 1,
    )
    return torch.cat([xyz, torch.rand(num_points, 3) * 2 - 1], dim=1), sample


def _build_model(config: Path | None, voxel_size: float | None) -> OneFormer3D:
    if config is None:
        settings = _default_settings()
    elif config.is_file():
        settings = Config.fromfile(config).model
    else:
        raise FileNotFoundError(f'--config: no file {config}')
    if voxel_size is not None:
        settings.get('encoder', settings)['voxel_size'] = voxel_size
    model = MODELS.build(settings)
    if not isinstance(model, OneFormer3D) or not isinstance(model.encoder, VoxelEncoder):
        raise ValueError('--config: expected a OneFormer3D with an encoder of voxels alone')
    if (model.num_semantic_classes, len(model.stuff_classes)) != (NUM_CLASSES, NUM_STUFF):
        raise ValueError(
            f'--config: expected a model of {NUM_CLASSES} classes, {NUM_STUFF} of them stuff'
        )
    return model


def _default_settings() -> dict:
    """A model for processors: half the published widths, 5 cm voxels, 3 decoder layers."""
    num_things = NUM_CLASSES - NUM_STUFF
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
        'test_cfg': {'stuff_classes': list(range(NUM_STUFF))},
    }


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()


def _tensors(outputs: QueryOutput) -> list[Tensor]:
    tensors: list[Tensor] = []
    map_outputs(outputs, lambda x: tensors.append(x) or x)
    return tensors


def _backward(outputs: list[Tensor], leaves: list[Tensor]) -> None:
    """Continue backward through ``outputs`` from the gradients their leaves received."""
    pairs = [(x, leaf.grad) for x, leaf in zip(outputs, leaves) if leaf.grad is not None]
    torch.autograd.backward([x for x, _ in pairs], [grad for _, grad in pairs])


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _ways_of_stages() -> dict[str, tuple[str, ...]]:
    both = ('forward', 'backward')
    return {s: ('forward',) if s in ('voxelise', 'post-process') else both for s in STAGES}


def _print_table(result: dict) -> None:
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
