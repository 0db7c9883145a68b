"""The images of a scanned folder, as a fused model reads them.

Enters: a folder of posed RGB-D frames and settings of CLIP. Leaves: ``PosedViews`` for any points
of that scan. Features are computed once per scan, pairs for each tile.

Letters: V views, C channels, N points.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneformer3d.data.layouts import PosedFolder
from oneformer3d.data.layouts.common import FittedFrame, common_camera
from oneformer3d.data.posed_rgbd import load_posed_rgbd, read_images
from oneformer3d.fusion.online_clip import OnlineClip
from oneformer3d.lifting.camera import Camera
from oneformer3d.lifting.pairs import project_pairs
from oneformer3d.lifting.shapes import size_of
from oneformer3d.structures import PosedViews


@dataclass(frozen=True, eq=False)
class ScanFrames:
    """Views in the coordinates of the scan.

    Attributes:
        name: of the folder.
        frames: V names.
        colors: (V, H, W, 3) uint8.
        camera: of the colour images.
        depth: (V, h, w) metres, 0 where missing.
        depth_camera: of the depth images.
    """

    name: str
    frames: tuple[str, ...]
    colors: np.ndarray
    camera: Camera
    depth: Tensor
    depth_camera: Camera


@dataclass(frozen=True)
class ScanImages:
    """Views with their features, in the coordinates of the scan.

    Attributes:
        name: of the folder.
        frames: V names.
        camera: of the colour images.
        depth: (V, h, w) metres, 0 where missing.
        depth_camera: of the depth images.
        feat: (V, C, h', w') frozen tokens.
        clip_global: (V, D).
    """

    name: str
    frames: tuple[str, ...]
    camera: Camera
    depth: Tensor
    depth_camera: Camera
    feat: Tensor
    clip_global: Tensor

    def views(self, points: np.ndarray) -> PosedViews:
        """What these images see of points (N, ≥ 3), given in the coordinates of the scan."""
        xyz = torch.from_numpy(np.ascontiguousarray(points[:, :3], dtype=np.float32))
        return PosedViews(
            pairs=project_pairs(xyz, self.camera, self.depth, depth_camera=self.depth_camera),
            world_from_cam=self.camera.world_from_cam,
            image_size=self.camera.image_size,
            num_points=len(xyz),
            scene_id=self.name,
            frames=self.frames,
            intrinsics=self.camera.intrinsics,
            feat=self.feat,
            clip_global=self.clip_global,
        )


class ScanImageReader:
    """Reads the images of folders for one model.

    Args:
        clip: settings of ``ClipEncoder``, at least ``weights``: those of the features that the
            model was trained with.
        clip_channels: of the tokens that the model reads; None takes whatever this CLIP makes.
        max_views: of a scan, evenly spread over its frames.
        device: where CLIP runs.

    Raises:
        ValueError: this CLIP makes maps of another number of channels.
        FileNotFoundError: no such weights.
    """

    def __init__(
        self,
        clip: Mapping[str, Any],
        clip_channels: int | None,
        max_views: int = 64,
        device: str | torch.device = 'cpu',
    ) -> None:
        if max_views < 1:
            raise ValueError(f'max_views must be at least 1, got {max_views}')
        self.clip = OnlineClip(dict(clip)).to(device).eval()
        self.max_views = max_views
        self.device = device
        if clip_channels is not None and self.clip.clip_channels != clip_channels:
            raise ValueError(
                f'{clip.get("weights")}: makes tokens of {self.clip.clip_channels} channels, the '
                f'model was trained with {clip_channels}'
            )

    def __call__(self, source: str | Path | PosedFolder) -> ScanImages:
        """Read, encode and keep the images of a folder.

        Args:
            source: a folder, or its frames where they are listed already.

        Raises:
            FileNotFoundError, ValueError: as ``load_posed_rgbd``; no frame can be read.
        """
        frames = read_scan_frames(source, self.max_views)
        images = torch.from_numpy(frames.colors).permute(0, 3, 1, 2)  # (V, 3, H, W)
        with torch.no_grad():
            feat, clip_global = self.clip.encode(images.to(self.device))
        return ScanImages(
            frames.name,
            frames.frames,
            frames.camera,
            frames.depth,
            frames.depth_camera,
            feat.cpu(),
            clip_global.cpu(),
        )


def read_scan_frames(source: str | Path | PosedFolder, max_views: int) -> ScanFrames:
    """Read images of a folder, evenly spread over it; those that cannot be read are left out.

    Args:
        source: a folder, or its frames where they are listed already.
        max_views: V, at most.

    Raises:
        FileNotFoundError, ValueError: as ``load_posed_rgbd``; no frame can be read.
    """
    sequence = source if isinstance(source, PosedFolder) else load_posed_rgbd(source)
    usable = [frame for frame in sequence.frames if frame.depth_path is not None]
    count = min(max_views, len(usable))
    chosen = np.linspace(0, len(usable) - 1, count).round().astype(int)
    common = common_camera(sequence.frames)

    frames, fitted = [], []
    for index in chosen:
        images = read_images(usable[index])
        if images is not None:
            frames.append(usable[index])
            fitted.append(common.fit(usable[index], *images))
    if not frames:
        raise ValueError(f'{sequence.folder}: none of {count} frames can be read')

    poses = torch.from_numpy(np.stack([f.world_from_cam for f in frames])).float()  # (V, 4, 4)
    colors = np.stack([f.color for f in fitted])  # (V, H, W, 3)
    depth, depth_camera = _depth_views(fitted, poses)
    return ScanFrames(
        sequence.folder.name,
        tuple(frame.name for frame in frames),
        colors,
        Camera(_matrices([f.intrinsics for f in fitted]), poses, colors.shape[1:3]),
        depth,
        depth_camera,
    )


def _depth_views(fitted: list[FittedFrame], poses: Tensor) -> tuple[Tensor, Camera]:
    """Depth (V, h, w) of frames that all have it, and its cameras."""
    depth = torch.from_numpy(np.stack([f.depth for f in fitted if f.depth is not None]))
    intrinsics = _matrices([f.depth_intrinsics for f in fitted if f.depth_intrinsics is not None])
    return depth, Camera(intrinsics, poses, size_of(depth))


def _matrices(intrinsics: list[np.ndarray]) -> Tensor:
    """(V, 3, 3), or (3, 3) where all are alike."""
    stacked = np.stack(intrinsics).astype(np.float32)
    return torch.from_numpy(stacked[0] if (stacked == stacked[0]).all() else stacked)
