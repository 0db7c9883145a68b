"""An opened scene → its segmentation by a model.

Enters: an ``OpenedScene`` without labels, a config and weights. Leaves: a ``Segmentation`` of its
points.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oneformer3d.data.clouds.as_scan import Scan
from oneformer3d.engine.configs import load_config
from oneformer3d.structures import Segmentation

from .clock import Progress
from .inferencer import OneFormer3DInferencer
from .opened_scene import OpenedScene


def segment_scene(
    scene: OpenedScene,
    config: str | Path,
    checkpoint: str | Path,
    clip: Mapping[str, Any] | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    score_thr: float = 0.3,
) -> Segmentation:
    """Segment the points of a scene.

    Args:
        scene: without segmentation.
        config, checkpoint, device: of the model.
        clip: settings of ``ClipEncoder``, for a model that reads image features; others see the
            points alone.
        progress, score_thr: see ``OneFormer3DInferencer``.

    Raises:
        FileNotFoundError, ValueError: as ``OneFormer3DInferencer``.
    """
    cfg = load_config(config)
    reads_images = cfg.model.get('encoder', {}).get('type') == 'BiFusionEncoder'
    model = OneFormer3DInferencer(
        cfg, checkpoint, device, clip=clip if reads_images else None, score_thr=score_thr
    )
    scan = Scan(
        scene.points,
        scene.origin,
        scene.upright_from_scan[2].astype(np.float64),
        scene.source,
        scene.path,
        scene.warnings,
        scene.recording,
    )
    return model(scan, progress=progress)
