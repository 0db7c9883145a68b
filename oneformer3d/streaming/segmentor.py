"""Frames in, tracks out, and at the end the whole scan.

    frame → points → superpoints of its depth → map → network on the map around the frame
          → instances of the frame → OnlineMerge
    finalize: the offline model on the whole map

Enters: ``StreamFrame`` records in any order. Leaves: a ``FrameResult`` for each; a
``Segmentation``. N points of a frame, K its instances.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray

from oneformer3d.data.clouds.as_scan import Scan
from oneformer3d.data.upright import rotation_to_z_up, up_of_frames
from oneformer3d.inference.inferencer import OneFormer3DInferencer, model_voxel_size
from oneformer3d.structures import Segmentation

from .frames import LiftedFrame, StreamFrame, lift_frame, looked_through
from .local_model import LocalInstances, LocalModel, class_logits, distinct_masks
from .online_merge import OnlineMerge
from .records import CameraPoints, FrameInstances
from .settings import MergeSettings
from .state import MergeState
from .surface_map import SurfaceMap
from .thin_surface import thin_surface
from .voxels import find, pack, voxels_of_points

_DEFAULTS = MergeSettings()
_LEAST_VOTE = 0.04  # metres: finer voxels of votes than the noise of depth match nothing
_FUSED_VOXEL = 0.02  # metres: that of ``read_scan``
_FEWEST_POINTS = 50
_FEWEST_PIXELS = 2  # of a voxel of a fused scan


@dataclass(frozen=True, eq=False)
class FrameResult:
    """What a frame brought.

    Attributes:
        index, name: of the frame.
        points: (N, 6) float32 world xyz in metres and rgb.
        tracks: (N,) int64 the track of each point, -1 none.
        ids: (K,) int64 the tracks this frame shows.
        left_out: why the frame was not taken, '' if it was.
        seconds: of each step.
    """

    index: int
    name: str
    points: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 6), np.float32))
    tracks: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    left_out: str = ''
    seconds: dict[str, float] = field(default_factory=dict)


class StreamingSegmentor:
    """Segments while frames come in.

    Args:
        config: of the model, as of ``OneFormer3DInferencer``; or an inferencer.
        checkpoint: the trained weights; none with an inferencer.
        up: (3,) direction of the world that points up; None takes it from the first frame's
            camera and surfaces.
        score_thr: least score of an instance.
        margin: metres of the map around a frame that the network sees with it.
        max_voxels: of the map, of that part at most.
        settings: of the merging rule.
        ledger: file of what frames voted, see ``OnlineMerge``.
        device: 'cpu', 'cuda', …

    Attributes:
        merge: the tracks.
        surface: the map, in world coordinates turned so that z is up.
        spacing: metres between the points that the network sees of it around a frame.
        left_out: reason → number of frames that were not taken.
    """

    def __init__(
        self,
        config: Config | str | Path | OneFormer3DInferencer,
        checkpoint: str | Path | None = None,
        *,
        up: NDArray | None = None,
        score_thr: float = 0.3,
        margin: float = 0.5,
        max_voxels: int = 200_000,
        settings: MergeSettings = _DEFAULTS,
        ledger: str | Path | None = None,
        device: str | None = None,
    ) -> None:
        if isinstance(config, OneFormer3DInferencer):
            self.inferencer = config
        elif checkpoint is None:
            raise ValueError('checkpoint: a config needs trained weights')
        else:
            self.inferencer = OneFormer3DInferencer(config, checkpoint, device, score_thr=score_thr)
        self.model = LocalModel(self.inferencer, score_thr)
        self.margin, self.max_voxels = margin, max_voxels

        voxel_size = self.inferencer.voxel_size or model_voxel_size(self.inferencer.config.model)
        self.surface = SurfaceMap(min(voxel_size, _FUSED_VOXEL) or _LEAST_VOTE)
        self.spacing = voxel_size or _LEAST_VOTE
        self.merge = OnlineMerge(max(voxel_size, _LEAST_VOTE), settings, ledger)
        self.left_out: dict[str, int] = {}
        self._rotation = None if up is None else rotation_to_z_up(np.asarray(up, np.float64))
        self._taken: set[int] = set()

    def run(self, frames: Iterable[StreamFrame]) -> Iterator[FrameResult]:
        """``step`` for every frame."""
        for frame in frames:
            yield self.step(frame)

    def step(self, frame: StreamFrame) -> FrameResult:
        """Take in one frame; frames without a usable pose or depth are counted and left out."""
        began = time.perf_counter()
        reason = self._unusable(frame)
        if reason:
            return self._leave_out(frame, reason)
        seconds: dict[str, float] = {}

        lifted = lift_frame(frame)
        seconds['superpoints'], began = _lap(began)
        if len(lifted.points) < _FEWEST_POINTS:
            return self._leave_out(frame, 'too few depths')
        self._taken.add(frame.index)

        # the world turned so that z is up
        if self._rotation is None:
            seen = frame.in_world(lifted.points)
            self._rotation = rotation_to_z_up(up_of_frames(seen, frame.world_from_cam[None]))
        pose = np.eye(4)
        pose[:3] = self._rotation @ frame.world_from_cam[:3]
        xyz = lifted.points.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
        points = np.concatenate([xyz, lifted.colors], axis=1)  # (N, 6)

        keys = self.surface.add(points, lifted.superpoints)
        rows = self.surface.near(xyz, self.margin, self.max_voxels)
        seconds['map'], began = _lap(began)

        around = self.surface.points(rows)  # (M, 6)
        standing = thin_surface(around[:, :3], self.surface.counts[rows], self.spacing)
        shown = rows[standing.rows]
        found = distinct_masks(self.model(around[standing.rows], self.surface.superpoints[shown]))
        seconds['network'], began = _lap(began)

        # of the masks on the map, what this frame sees
        row_of_point = find(self.surface.keys[rows], keys)
        seen = row_of_point >= 0
        stands = standing.of_point[np.where(seen, row_of_point, 0)]
        masks = found.masks[:, stands] & seen  # (K, N)
        found, masks = self._well_seen(found, masks, xyz)
        known = self.merge.known_voxels() + 0.5
        free = looked_through(frame, known * self.merge.voxel_size, pose)
        source = CameraPoints(
            lifted.points, tuple(np.flatnonzero(mask) for mask in masks), pose, free
        )
        instances = FrameInstances.of_points(
            source,
            self.merge.voxel_size,
            found.scores,
            class_logits(found.labels, found.scores, self.model.num_classes),
            found.features,
            frame.index,
        )
        world = voxels_of_points(around[:, :3], self.merge.voxel_size)
        instances = replace(
            instances,
            beyond=tuple(world[mask[standing.of_point]] for mask in found.masks),
            around=world,
        )
        ids = self.merge.update(instances)
        tracks = np.full(len(points), -1, np.int64)
        for mask, track in zip(masks, ids):
            tracks[mask] = track
        seconds['merge'], _ = _lap(began)
        return self._result(frame, lifted, tracks, ids, seconds)

    def finalize(self) -> Segmentation:
        """The offline model on the whole map: what ``infer`` says of these points.

        Raises:
            ValueError: no frame was taken.
        """
        segmentation = self.inferencer(self.scan())
        return replace(segmentation, warnings=self.warnings)

    def scan(self) -> Scan:
        """The map as a scan in the coordinates of the frames' poses, fused as ``read_scan`` does.

        Voxels in which a single pixel fell are left out, unless there are no others.

        Raises:
            ValueError: no frame was taken.
        """
        if self._rotation is None or len(self.surface) == 0:
            raise ValueError('no frame was taken, so there is nothing to segment')
        solid = self.surface.counts >= _FEWEST_PIXELS
        points = self.surface.points(np.flatnonzero(solid) if solid.any() else slice(None))
        points[:, :3] = points[:, :3] @ self._rotation.astype(np.float32)
        return Scan(points, np.zeros(3), self._rotation[2], 'stream')

    def has_taken(self, index: int) -> bool:
        """Whether a frame of this index was taken."""
        return index in self._taken

    def leave_out(self, reason: str, num_frames: int = 1) -> None:
        """Count frames that never came here, or came for nothing."""
        if num_frames:
            self.left_out[reason] = self.left_out.get(reason, 0) + num_frames

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was left out, with counts."""
        return tuple(f'{n} frames left out: {reason}' for reason, n in self.left_out.items())

    def track_voxels(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Points (M, 3) of the map in the world and the track of each (M,), -1 none."""
        xyz = self.surface.points()[:, :3].astype(np.float64)
        voxels = np.floor(xyz / self.merge.voxel_size).astype(np.int64)
        world = xyz if self._rotation is None else xyz @ self._rotation
        return world, self.merge.owners_of(voxels)

    def snapshot(self) -> MergeState:
        """Everything as it stands."""
        arrays = dict(self.merge.snapshot().arrays)
        arrays |= {f'surface_{name}': value for name, value in self.surface.arrays().items()}
        arrays['taken'] = np.array(sorted(self._taken), np.int64)
        arrays['rotation'] = np.zeros((0, 3)) if self._rotation is None else self._rotation
        arrays['reasons'] = np.array([*self.left_out], dtype=np.str_)
        arrays['num_left_out'] = np.array([*self.left_out.values()], np.int64)
        return MergeState(arrays)

    def restore(self, state: MergeState) -> None:
        """Go back to a snapshot, of this process or of an earlier one with the same ledger."""
        arrays = state.arrays
        self.merge.restore(state)
        prefix = 'surface_'
        self.surface.load_arrays(
            {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        )
        self._taken = set(arrays['taken'].tolist())
        self._rotation = arrays['rotation'] if len(arrays['rotation']) else None
        self.left_out = dict(zip(arrays['reasons'].tolist(), arrays['num_left_out'].tolist()))

    def _well_seen(
        self, found: LocalInstances, masks: NDArray[np.bool_], points: NDArray
    ) -> tuple[LocalInstances, NDArray[np.bool_]]:
        """Without masks of which the frame only sees a rim, too little to tell who it is.

        Args:
            found: K instances of the map around the frame.
            masks: (K, N) which of the frame's points lie in them.
            points: (N, 3) metres in the upright world.
        """
        voxels = pack(voxels_of_points(points, self.merge.voxel_size))
        sizes = [len(np.unique(voxels[mask])) for mask in masks]
        keep = np.array(sizes, int) >= self.merge.settings.enough_voxels
        return found.take(keep), masks[keep]

    def _unusable(self, frame: StreamFrame) -> str:
        if frame.index in self._taken:
            return 'a second time'
        if not frame.has_pose:
            return 'no usable pose'
        if frame.depth.size == 0 or not (np.nan_to_num(frame.depth) > 0).any():
            return 'no depth'
        return ''

    def _leave_out(self, frame: StreamFrame, reason: str) -> FrameResult:
        self.leave_out(reason)
        return FrameResult(frame.index, frame.name, left_out=reason)

    @staticmethod
    def _result(
        frame: StreamFrame,
        lifted: LiftedFrame,
        tracks: NDArray[np.int64],
        ids: NDArray[np.int64],
        seconds: dict[str, float],
    ) -> FrameResult:
        xyz = frame.in_world(lifted.points)
        points = np.concatenate([xyz, lifted.colors], axis=1).astype(np.float32)
        return FrameResult(frame.index, frame.name, points, tracks, ids, '', seconds)


def _lap(began: float) -> tuple[float, float]:
    """Seconds since, and now."""
    now = time.perf_counter()
    return now - began, now
