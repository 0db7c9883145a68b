"""Calling the Bi-Fusion encoder with plain tensors, without a segmentor around it.

Enters: points, images (or maps, or the names of stored ones) and cameras, batched or in lists.
Leaves: the inputs that the encoder takes from a segmentor: points [(N, 6)] and ``PosedViews`` of
each sample. V views.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Protocol

import torch
from torch import Tensor, nn

from oneformer3d.lifting.camera import Camera
from oneformer3d.lifting.pairs import project_pairs
from oneformer3d.lifting.shapes import size_of
from oneformer3d.store import FeatureStore, read_views
from oneformer3d.structures import PosedViews

from .fused_points import FusedPoints, FusedSample

# a tensor whose first dimension is the sample, or one tensor for each sample
Batch = Tensor | Sequence[Tensor]


class OfflineEncoder(Protocol):
    """What ``accepts_plain_tensors`` reads of an encoder."""

    online_clip: nn.Module | None
    clip_channels: int
    clip_store: str | None


def accepts_plain_tensors(forward: Callable[..., FusedPoints]) -> Callable:
    """Let the ``forward(inputs, data_samples)`` of an encoder take plain tensors too.

    ``encoder(inputs, data_samples)`` with the segmentor's dictionary is passed on as it is.
    ``encoder(points, images, intrinsics, extrinsics, …)`` goes through ``inputs_of_tensors`` and
    returns ``FusedPoints.samples()``. With offline features the views named by ``scene_ids`` and
    ``frame_ids`` are read from the encoder's store, of images only the size is used, and maps of
    the store's channels may stand in their place.
    """

    @wraps(forward)
    def call(
        encoder: OfflineEncoder,
        inputs: Mapping | Batch,
        data_samples: Sequence | Batch | None = None,
        intrinsics: Batch | None = None,
        extrinsics: Batch | None = None,
        depth: Batch | None = None,
        image_size: Sequence[int] | None = None,
        scene_ids: Sequence[str] | None = None,
        frame_ids: Sequence[Sequence[str]] | None = None,
    ) -> FusedPoints | list[FusedSample]:
        if isinstance(inputs, Mapping):
            return forward(encoder, inputs, data_samples)

        content, as_maps = data_samples, encoder.online_clip is None
        if as_maps and not _are_maps(content, encoder.clip_channels):
            content, stored_size = _stored_maps(encoder.clip_store, content, scene_ids, frame_ids)
            image_size = stored_size if image_size is None else image_size

        cameras = (intrinsics, extrinsics, depth, image_size)
        batch = inputs_of_tensors(inputs, content, *cameras, scene_ids, frame_ids, as_maps)
        return forward(encoder, batch).samples()

    del call.__wrapped__  # help() shows the arguments of ``call``
    return call


def _are_maps(images: Batch | None, clip_channels: int) -> bool:
    return images is not None and len(images) > 0 and images[0].shape[-3] == clip_channels


def _stored_maps(
    clip_store: str | None,
    images: Batch | None,
    scene_ids: Sequence[str] | None,
    frame_ids: Sequence[Sequence[str]] | None,
) -> tuple[list[Tensor] | None, tuple[int, int] | None]:
    """Maps (V, C, h, w) of each sample, None without names and images, and (H, W) of the images."""
    if clip_store is None or scene_ids is None or frame_ids is None:
        if images is None:
            return None, None
        raise ValueError(
            'offline features need scene_ids, frame_ids and an encoder with a clip_store, '
            'or maps of its clip_channels in place of images, with the image_size'
        )

    store = FeatureStore(clip_store)
    maps = [read_views(store, *names)['feat'] for names in zip(scene_ids, frame_ids, strict=True)]
    return maps, None if images is None else size_of(images[0])


def inputs_of_tensors(
    points: Batch,
    images: Batch | None,
    # cameras
    intrinsics: Batch | None,
    extrinsics: Batch | None,
    depth: Batch | None = None,
    image_size: Sequence[int] | None = None,
    # names
    scene_ids: Sequence[str] | None = None,
    frame_ids: Sequence[Sequence[str]] | None = None,
    as_maps: bool = False,
) -> dict[str, list]:
    """``points`` and ``views`` of plain tensors.

    Args:
        points: (B, N, 6) or a list of (N, 6).
        images: (B, 3, H, W), or per sample (3, H, W) or (V, 3, H, W), uint8 or 0–1; with
            ``as_maps`` in their place maps of ``clip_channels`` channels. None for no views.
        intrinsics: (3, 3), (B, 3, 3), or per sample (3, 3) or (V, 3, 3).
        extrinsics: (B, 4, 4), or per sample (4, 4) or (V, 4, 4) camera to world.
        depth: (B, h, w), or per sample (h, w) or (V, h, w), metres; None tests the frustum.
        image_size: (H, W) that the intrinsics belong to; the images' own by default, needed
            with maps.
        scene_ids: name of each sample.
        frame_ids: names of the views of each sample.
        as_maps: the images are maps.

    Raises:
        ValueError: arguments of which the samples differ in number, or of wrong shapes.
    """
    points = list(points)
    num_samples = len(points)
    if images is None:
        return {'points': points, 'views': [None] * num_samples}

    if intrinsics is None or extrinsics is None:
        raise ValueError('images need intrinsics and extrinsics')
    if as_maps and image_size is None:
        raise ValueError('maps need the image_size that their intrinsics belong to')
    if torch.is_tensor(intrinsics) and intrinsics.ndim == 2:
        intrinsics = [intrinsics] * num_samples
    for name, value in (('images', images), ('intrinsics', intrinsics), ('extrinsics', extrinsics)):
        if len(value) != num_samples:
            raise ValueError(f'{num_samples} point clouds but {len(value)} {name}')

    views = []
    for i, cloud in enumerate(points):
        content = images[i] if images[i].ndim == 4 else images[i][None]  # (V, C, H, W)
        content = content.to(cloud.device)
        poses = extrinsics[i].reshape(-1, 4, 4).to(cloud)  # (V, 4, 4)
        maps = None if depth is None else depth[i].reshape(-1, *depth[i].shape[-2:])  # (V, h, w)
        frames = () if frame_ids is None else tuple(frame_ids[i])
        if len(poses) != len(content):
            raise ValueError(f'sample {i}: {len(content)} images but {len(poses)} poses')
        if frames and len(frames) != len(content):
            raise ValueError(f'sample {i}: {len(content)} images but {len(frames)} frame_ids')

        height, width = size_of(content) if image_size is None else image_size
        size = (height, width)
        camera = Camera(intrinsics[i].to(cloud), poses, size)
        views.append(
            PosedViews(
                pairs=project_pairs(cloud[:, :3], camera, maps),
                world_from_cam=poses,
                image_size=size,
                num_points=len(cloud),
                scene_id='' if scene_ids is None else scene_ids[i],
                frames=frames,
                feat=content if as_maps else None,
                images=None if as_maps else content,
            )
        )
    return {'points': points, 'views': views}
