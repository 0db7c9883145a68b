"""What a frame says and what is known after it.

Enters: points and instances of one frame. Leaves: ``FrameInstances``, ``Track``, ``Event``.
K instances, C classes, D channels, N points, n and m voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from .voxels import pack, unpack, voxels_of_points

EVENTS = ('birth', 'merge', 'split', 'moved', 'revived', 'dropped')


@dataclass(frozen=True, eq=False)
class CameraPoints:
    """A frame as its camera saw it, so that it can be moved when its pose is corrected.

    Attributes:
        points: (N, 3) float32 metres in camera coordinates.
        members: of each of K instances the rows (n,) int64 of its points.
        world_from_cam: (4, 4) float64.
        free: (f, 3) float32, points in camera coordinates that the camera looked through.
    """

    points: NDArray[np.float32]
    members: tuple[NDArray[np.int64], ...]
    world_from_cam: NDArray[np.float64]
    free: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 3), np.float32))

    def in_world(self, points: NDArray) -> NDArray[np.float64]:
        """Points (n, 3) of the camera in world coordinates."""
        return (
            points.astype(np.float64) @ self.world_from_cam[:3, :3].T + self.world_from_cam[:3, 3]
        )


@dataclass(frozen=True, eq=False)
class FrameInstances:
    """The instances of one frame on world voxels.

    Attributes:
        voxels: of each of K instances (n_k, 3) int64 world voxels.
        scores: (K,) 0…1.
        class_logits: (K, C).
        features: (K, D); D may be 0. Rows that are not finite count as unknown.
        visible: (m, 3) int64, every voxel on a surface that the frame saw; holds all of ``voxels``.
        free: (f, 3) int64, voxels that the frame looked through: depth lies clearly behind.
        index: of the frame; frames that were given once are not counted twice. None counts up.
        source: the frame in its camera, without which its pose cannot be corrected.
        beyond: of each instance (n, 3) int64, known voxels of it that this frame does not see; they
            help to tell who it is and do not vote. Empty for none of any.
        around: (m, 3) int64, known voxels outside the frame in which ``beyond`` was looked for.
    """

    voxels: tuple[NDArray[np.int64], ...]
    scores: NDArray[np.float32]
    class_logits: NDArray[np.float32]
    features: NDArray[np.float32]
    visible: NDArray[np.int64]
    free: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    index: int | None = None
    source: CameraPoints | None = None
    beyond: tuple[NDArray[np.int64], ...] = ()
    around: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 3), np.int64))

    def __post_init__(self) -> None:
        sizes = {
            'scores': len(self.scores),
            'class_logits': len(self.class_logits),
            'features': len(self.features),
        }
        if self.beyond:
            sizes['beyond'] = len(self.beyond)
        wrong = {name: size for name, size in sizes.items() if size != len(self.voxels)}
        if wrong:
            raise ValueError(f'expected {len(self.voxels)} rows as of voxels, got {wrong}')
        for name, rows in (('visible', self.visible), ('free', self.free)):
            if rows.ndim != 2 or rows.shape[1] != 3:
                raise ValueError(f'{name}: expected (m, 3), got {rows.shape}')

    @classmethod
    def of_points(
        cls,
        source: CameraPoints,
        voxel_size: float,
        scores: NDArray,
        class_logits: NDArray,
        features: NDArray,
        index: int | None = None,
    ) -> 'FrameInstances':
        """The frame that a camera's points make in the world.

        Args:
            source: points and instances in camera coordinates.
            voxel_size: metres, that of the ``OnlineMerge`` that will read it.
            scores, class_logits, features, index: see the class.
        """
        voxels = voxels_of_points(source.in_world(source.points), voxel_size)  # (N, 3)
        free = _distinct(voxels_of_points(source.in_world(source.free), voxel_size))
        visible = _distinct(voxels)

        # what holds a measured point is not free
        free = unpack(np.setdiff1d(pack(free), pack(visible)))
        return cls(
            tuple(_distinct(voxels[rows]) for rows in source.members),
            scores,
            class_logits,
            features,
            visible,
            free,
            index=index,
            source=source,
        )

    def moved(self, world_from_cam: NDArray, voxel_size: float) -> 'FrameInstances':
        """The same frame at another pose.

        Raises:
            ValueError: it does not know its points in the camera.
        """
        if self.source is None:
            raise ValueError('the frame has no source, so its pose cannot be corrected')
        source = replace(self.source, world_from_cam=np.asarray(world_from_cam, np.float64))
        labels = (self.scores, self.class_logits, self.features, self.index)
        return FrameInstances.of_points(source, voxel_size, *labels)


@dataclass(frozen=True, eq=False)
class Track:
    """An object followed through the frames.

    Attributes:
        id: never reused.
        state: 'tentative', 'confirmed', or 'dormant' where it was not met for long.
        voxels: (n, 3) int64, those where it has the most votes.
        weights: (n,) int32 its votes there.
        box: (2, 3) float64 metres, lowest and highest corner of its voxels; zeros without any.
        feature: (D,) float32 mean of its instances weighted by their visible voxels, unit length.
        class_log_probs: (C,) float64 sum over its instances.
        coverage: 0…1, share of the directions around it from which it was seen.
        support: instances that joined it over the frames that saw one of its voxels, on average;
            at least about 1 for what every frame finds.
        confidence: 0…1, grows with every instance: 1 − exp(−Σ scores).
        birth, last_seen: numbers of frames.
        hits: instances that joined it.
    """

    id: int
    state: str
    voxels: NDArray[np.int64]
    weights: NDArray[np.int32]
    box: NDArray[np.float64]
    feature: NDArray[np.float32]
    class_log_probs: NDArray[np.float64]
    coverage: float
    support: float
    confidence: float
    birth: int
    last_seen: int
    hits: int

    @property
    def label(self) -> int:
        """The class most instances voted for; -1 if none voted."""
        return int(self.class_log_probs.argmax()) if self.class_log_probs.any() else -1


@dataclass(frozen=True)
class Event:
    """Something that happened to identities.

    Attributes:
        frame: number of the frame.
        kind: one of ``EVENTS``.
        track: the track that remains.
        other: of a merge the track that ended, of a split the new one; else -1.
    """

    frame: int
    kind: str
    track: int
    other: int = -1


def _distinct(voxels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, 3) without repetitions, sorted by their keys."""
    return unpack(np.unique(pack(voxels)))


def no_instances(num_classes: int, num_channels: int, visible: NDArray) -> FrameInstances:
    """A frame in which nothing was found."""
    empty: Sequence[NDArray[np.int64]] = ()
    return FrameInstances(
        tuple(empty),
        np.zeros(0, np.float32),
        np.zeros((0, num_classes), np.float32),
        np.zeros((0, num_channels), np.float32),
        visible,
    )
