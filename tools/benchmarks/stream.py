"""A stream of frames against the offline model on the same map, and ESAM's merging rule.

FRAMES is a folder of posed RGB-D frames, LABELS a folder as tools/evaluate_scan.py takes it, of the
same scan, turned so that z is up as ``read_scan`` finds it. All three are scored in one run,
whatever things are called, at the same moments and on the surface seen until then: the tracks, the
tracks that ESAM's rule makes of the same instances, and the whole model on the map so far.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from oneformer3d.data.posed_rgbd import load_posed_rgbd
from oneformer3d.data.scan import read_scan
from oneformer3d.data.thinning import thin_scan
from oneformer3d.data.upright import rotation_to_z_up
from oneformer3d.inference.inferencer import CHECKPOINT, CONFIG, OneFormer3DInferencer
from oneformer3d.metrics.instance import InstanceScores, instance_scores, match_instances
from oneformer3d.metrics.labelled_scan import ScanLabels
from oneformer3d.metrics.streaming import CausalEvaluator, TrackMap, latency
from oneformer3d.streaming.online_merge import OnlineMerge
from oneformer3d.streaming.records import FrameInstances
from oneformer3d.streaming.segmentor import StreamingSegmentor
from oneformer3d.streaming.sources import read_frame, up_of_recording
from oneformer3d.streaming.voxels import voxels_of_points
from oneformer3d.structures import Segmentation
from tools.benchmarks._esam import EsamMerge
from tools.benchmarks._measure import print_table
from tools.evaluate_scan import read_labels

MIN_POINTS = 10
KEYS = ('area_ap50', 'final_ap50', 'final_ap25', 'switches', 'fragments')
SIDES = ('stream', 'esam', 'offline')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is streamed, with which model, and how often it is scored."""
    parser.add_argument('frames', type=Path, help='folder of posed RGB-D frames')
    parser.add_argument('labels', type=Path, help='folder with cloud.npz and classes.json')
    parser.add_argument('--config', default=str(CONFIG), help='default: the shipped model')
    parser.add_argument('--checkpoint', default=str(CHECKPOINT))
    parser.add_argument('--every', type=int, default=5, help='frames between scores (%(default)s)')
    parser.add_argument('--device', default='cpu')


def run(args: argparse.Namespace) -> dict:
    """Stream, print a table and return the numbers.

    Returns:
        Of each of ``SIDES`` its AP over time, area and final AP, switches and fragments; the ratio
        of areas and the difference of final AP50; seconds of a frame.

    Raises:
        ValueError: ``--every`` below 1, or no frame could be used.
        FileNotFoundError: a folder or the weights are missing.
    """
    if args.every < 1:
        raise ValueError(f'--every: expected at least 1, got {args.every}')
    frames = load_posed_rgbd(args.frames).frames
    up = up_of_recording(frames)
    upright_from_world = rotation_to_z_up(read_scan(args.frames).up)
    inferencer = OneFormer3DInferencer(args.config, args.checkpoint, args.device)
    segmentor = StreamingSegmentor(inferencer, up=up)
    recorder = Recorder(segmentor.merge.voxel_size)
    segmentor.merge = recorder

    truth = read_truth(args.labels, inferencer.voxel_size, upright_from_world)
    evaluators = {side: evaluator(*truth) for side in ('stream', 'esam')}
    offline: list[InstanceScores] = []
    seconds: list[float] = []
    for number, frame in enumerate(frames, start=1):
        pixels = read_frame(frame)
        result = None if pixels is None else segmentor.step(pixels)
        if result is not None and not result.left_out:
            seconds.append(sum(result.seconds.values()))
            for one in evaluators.values():
                one.see(result.points[:, :3])
        if number % args.every == 0 or number == len(frames):
            observe(number, segmentor, recorder.esam, evaluators, offline)
    if not seconds:
        raise ValueError(f'{args.frames}: no frame could be used')

    report: dict[str, Any] = {side: describe(one) for side, one in evaluators.items()}
    ap50 = [scores.mean_ap50 for scores in offline]
    report['offline'] = {
        'area_ap50': float(np.nanmean(ap50)),
        'final_ap50': ap50[-1],
        'final_ap25': offline[-1].mean_ap25,
        'ap50': ap50,
    }
    stream, twin = report['stream'], report['offline']
    report['area_ratio'] = stream['area_ap50'] / max(twin['area_ap50'], 1e-12)
    report['final_gap'] = twin['final_ap50'] - stream['final_ap50']
    report['seconds_p50'], report['seconds_p95'] = latency(seconds)
    report['num_frames'] = len(seconds)
    tell(report)
    return report


class Recorder(OnlineMerge):
    """The merging rule, with ESAM's beside it on the same instances."""

    def __init__(self, voxel_size: float) -> None:
        super().__init__(voxel_size)
        self.esam = EsamMerge()

    def update(self, frame: FrameInstances, tracks: NDArray | None = None) -> NDArray[np.int64]:
        """As of ``OnlineMerge``."""
        self.esam.update(frame)
        return super().update(frame, tracks)


def read_truth(
    folder: Path, voxel_size: float, upright_from_world: NDArray
) -> tuple[NDArray, NDArray]:
    """Points (N, 3) in the world, one of each voxel, and their instance (N,), -1 void."""
    points, labels = read_labels(folder)
    if voxel_size:
        cell = thin_scan(points, voxel_size).cell_of_point
        rows = np.unique(cell, return_index=True)[1]
        points, labels = points[rows], labels.rows(rows)
    return points[:, :3].astype(np.float64) @ upright_from_world, things(labels)


def things(labels: ScanLabels) -> NDArray[np.int64]:
    """Instance (N,) 0…G−1, -1 for what has no name and for stuff."""
    stuff = [labels.names.index(name) for name in labels.stuff if name in labels.names]
    void = (labels.semantic >= len(labels.names)) | np.isin(labels.semantic, stuff)
    instance = np.where(void, -1, labels.instance)
    known = instance >= 0
    instance[known] = np.unique(instance[known], return_inverse=True)[1]
    return instance


def evaluator(points: NDArray, instance: NDArray[np.int64]) -> CausalEvaluator:
    """Scores masks whatever they are called."""
    labels = np.zeros(int(instance.max(initial=-1)) + 1, np.int64)
    return CausalEvaluator(points, instance, labels, 1, min_region_size=MIN_POINTS)


def observe(
    number: int,
    segmentor: StreamingSegmentor,
    esam: EsamMerge,
    evaluators: dict[str, CausalEvaluator],
    offline: list[InstanceScores],
) -> None:
    """Score all sides as they are after a frame."""
    if len(segmentor.surface) == 0:
        return
    world, track = segmentor.track_voxels()
    tracks = [one for one in segmentor.merge.tracks() if one.state != 'tentative']
    ids = np.array([one.id for one in tracks], np.int64)
    scores = np.array([one.confidence for one in tracks])
    evaluators['stream'].observe(number, track_map(world, track, ids, scores))

    upright = segmentor.surface.points()[:, :3]
    owners = esam.owners_of(voxels_of_points(upright, segmentor.merge.voxel_size))
    found = track_map(world, owners, np.arange(len(esam.counts)), esam.scores)
    evaluators['esam'].observe(number, found)
    offline.append(score_masks(evaluators['stream'], segmentor.finalize()))


def track_map(world: NDArray, track: NDArray, ids: NDArray, scores: NDArray) -> TrackMap:
    """Tracks without classes."""
    return TrackMap(world, track, ids, np.zeros(len(ids), np.int64), scores)


def score_masks(one: CausalEvaluator, result: Segmentation) -> InstanceScores:
    """Instances of a scan, which may overlap as no tracks do, on the surface seen until now."""
    seen = one.seen
    tree = KDTree(result.points[:, :3])
    distance, row = tree.query(one.points[seen], distance_upper_bound=one.max_distance)
    near = np.isfinite(distance)
    masks = np.zeros((len(result.instances), len(row)), bool)
    for index, instance in enumerate(result.instances):
        masks[index, near] = instance.mask[row[near]]
    scores = np.array([instance.score for instance in result.instances])

    labels = np.zeros(len(masks), np.int64)
    match = match_instances(
        masks, labels, scores, one.instance[seen], one.labels, one.min_region_size
    )
    return instance_scores([match], 1, one.min_region_size)


def describe(one: CausalEvaluator) -> dict[str, Any]:
    """Plain numbers."""
    scores = one.scores()
    return {
        'area_ap50': scores.area_ap50,
        'final_ap50': scores.final.ap50,
        'final_ap25': scores.final.ap25,
        'switches': scores.switches,
        'fragments': scores.fragments,
        'num_never_right': scores.num_never_right,
        'frames': [moment.frame for moment in scores.moments],
        'ap50': [moment.ap50 for moment in scores.moments],
    }


def tell(report: dict[str, Any]) -> None:
    """A row of each side."""
    columns = {'area AP50': '.3f', 'final AP50': '.3f', 'final AP25': '.3f'}
    columns |= {'switches': '.2f', 'fragments': '.2f'}
    rows: dict[str, list[float | None]] = {}
    for side in SIDES:
        of = report[side]
        # the offline model starts anew each time, so its identities mean nothing
        rows[side] = [of.get(key) for key in KEYS]
    print_table(columns, rows)
    print(
        f'area AP50 {report["area_ratio"]:.2f} of offline, final {report["final_gap"]:+.3f} below'
    )
    print(f'{report["seconds_p50"]:.2f} s a frame, 95 % within {report["seconds_p95"]:.2f} s')
