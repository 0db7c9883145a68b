"""What a stream leaves behind, beside the files of its ``Segmentation``.

Enters: a ``StreamingSegmentor``. Leaves: in a folder

- ``tracks.ply``: the map coloured by track; property track
- ``tracks.json``: tracks with class, state, box, hits and more; boxes in the upright world
- ``tracks.png``: the map from above: colours, classes of tracks, tracks
- ``stream.json``: frames taken and left out, latencies, memory, events
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.images import write_png
from oneformer3d.files.plain import Json
from oneformer3d.files.ply import write_ply
from oneformer3d.metrics.streaming import latency
from oneformer3d.structures.exports import rounded
from oneformer3d.visualization.figure import segmentation_figure
from oneformer3d.visualization.labels import PointLabels
from oneformer3d.visualization.palette import instance_colors

from .segmentor import FrameResult, StreamingSegmentor

FILES = ('tracks.ply', 'tracks.json', 'tracks.png', 'stream.json')


def write_stream(
    segmentor: StreamingSegmentor, results: Sequence[FrameResult], out: str | Path
) -> None:
    """Write the four files; each appears whole or not at all."""
    out = Path(out)
    xyz, track = segmentor.track_voxels()
    write_ply(out / 'tracks.ply', xyz.astype(np.float32), instance_colors(track), {'track': track})
    write_png(out / 'tracks.png', _picture(segmentor, track))

    _write(out / 'tracks.json', {'tracks': _tracks(segmentor)})
    _write(out / 'stream.json', summary(segmentor, results))


def summary(segmentor: StreamingSegmentor, results: Sequence[FrameResult]) -> dict[str, Json]:
    """Counts, seconds and events as plain JSON values; seconds are of this process's frames."""
    taken = [result for result in results if not result.left_out]
    steps = {name: [r.seconds[name] for r in taken] for name in (taken[0].seconds if taken else ())}
    steps['all'] = [sum(r.seconds.values()) for r in taken]
    seconds: dict[str, Json] = {
        name: rounded(latency(values), 4) for name, values in steps.items() if values
    }

    merge = segmentor.merge
    return {
        'num_frames': merge.num_frames,
        'left_out': dict(segmentor.left_out),
        'num_tracks': len(merge.tracks()),
        'num_map_voxels': len(segmentor.surface),
        'num_vote_voxels': merge.num_voxels,
        'num_ledger_bytes': merge.num_ledger_bytes,
        'seconds_p50_p95': seconds,
        'events': [[e.frame, e.kind, e.track, e.other] for e in merge.events],
    }


def _tracks(segmentor: StreamingSegmentor) -> list[Json]:
    table = segmentor.inferencer.class_table
    class_of = segmentor.model.model.instance_classes
    return [
        {
            'id': track.id,
            'class': table.classes[class_of[track.label]] if track.label >= 0 else '',
            'state': track.state,
            'confidence': round(track.confidence, 4),
            'coverage': round(track.coverage, 4),
            'num_voxels': len(track.voxels),
            'box': [rounded(corner, 3) for corner in track.box],
            'birth': track.birth,
            'last_seen': track.last_seen,
            'hits': track.hits,
        }
        for track in segmentor.merge.tracks()
    ]


def _picture(segmentor: StreamingSegmentor, track: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8, input | classes of tracks | tracks."""
    points = segmentor.surface.points()
    table = segmentor.inferencer.class_table
    class_of = segmentor.model.model.instance_classes
    label_of = {t.id: class_of[t.label] for t in segmentor.merge.tracks() if t.label >= 0}
    labels = PointLabels(classes_of_tracks(track, label_of, len(table.classes)), track, None)
    rgb = points[:, 3:].clip(0, 255).astype(np.uint8)
    return segmentation_figure(
        points[:, :3], rgb, labels, table.classes, table.palette, camera='dollhouse'
    )


def classes_of_tracks(
    track: np.ndarray, label_of: Mapping[int, int], num_classes: int
) -> np.ndarray:
    """Class (N,) int64 of each point's track; C, unlabeled, where there is no track or no class.

    Args:
        track: (N,) ids, -1 for none.
        label_of: class of each track that has one.
        num_classes: C.

    Example:
        >>> classes_of_tracks(np.array([7, -1, 8]), {7: 2}, num_classes=5)
        array([2, 5, 5])
    """
    return np.array([label_of.get(int(t), num_classes) for t in track], np.int64)


def _write(path: Path, content: Mapping[str, Json]) -> None:
    atomic_write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + '\n').encode())
