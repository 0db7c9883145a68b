"""Training of MVPNet in two stages: the image network on pictures, then everything together.

Enters: a network and batches of one's own (``train_feature_lifting_model``), or configs
(``train_two_stages``). Leaves: the trained network, or checkpoints in a work dir. What each stage
trains, how fast and for how long stands in the configs: ``configs/mvpnet_2d_synthetic.py`` and
``configs/mvpnet_synthetic.py``. N points, V views.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor

from oneformer3d.engine.configs import load_config
from oneformer3d.engine.data_workers import tended_workers
from oneformer3d.engine.launch import build_runner
from oneformer3d.lifting.depth_render import zbuffer_views
from oneformer3d.lifting.inputs import camera_views, depth_views
from oneformer3d.lifting.pairs import project_pairs
from oneformer3d.lifting.shapes import size_of
from oneformer3d.lifting.visibility import Visibility
from oneformer3d.structures import PosedViews

from .image_segmentor import train_image_net
from .point_labels import masked_cross_entropy
from .segmentor import FeatureLiftingSegmentation

# learning rates of the backbone and of everything else
BACKBONE_LR, LR = 1e-4, 1e-3
_POINT_SIZE = 3  # pixels of a point in the z-buffer of scans without depth


class LiftingBatch(TypedDict):
    """One scan of a loader.

    ``points`` (N, ≥ 3), ``images`` (V, 3, H, W) uint8 or 0–1, ``labels`` (N,) int64 (the number
    of classes means unlabeled) and ``camera_params``, V of intrinsics (3, 3) and camera-to-world
    pose (4, 4); perhaps ``depth`` (V, h, w) metres, else points hide what lies behind them.
    """

    points: Tensor
    images: Tensor
    labels: Tensor
    camera_params: list[tuple[Tensor, Tensor]]
    depth: NotRequired[Tensor]


def train_feature_lifting_model(
    model: FeatureLiftingSegmentation,
    train_loader: Iterable[LiftingBatch],
    num_epochs: int = 100,
    image_loader: Iterable[tuple[Tensor, Tensor]] | None = None,
    image_epochs: int = 10,
) -> list[float]:
    """Train a network on batches of one's own: images first where there are any, then all.

    Adam with 1e-4 for the backbone and 1e-3 for the rest. For checkpoints, schedules and resuming
    take ``train_two_stages``.

    Args:
        model: is trained in place and left in training mode.
        train_loader: gives a ``LiftingBatch`` of one scan at a time.
        num_epochs: times through ``train_loader``.
        image_loader: gives images (B, 3, H, W) and the classes of their pixels (B, H, W); the
            image network learns them first. None leaves this stage out.
        image_epochs: times through ``image_loader``.

    Returns:
        The mean loss of every epoch of the second stage.

    Raises:
        ValueError: no batches, batches that do not fit, a model without images and images for it.
    """
    if image_loader is not None:
        if model.image_net is None:
            raise ValueError('image_loader: this network has no image_net to train')
        train_image_net(model.image_net, image_loader, model.num_classes, image_epochs, BACKBONE_LR)

    optimizer = torch.optim.Adam(_parameter_groups(model), lr=LR)
    model.train()
    epochs = []
    for _ in range(num_epochs):
        losses = []
        for batch in train_loader:
            loss = _scan_loss(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if not losses:
            raise ValueError('train_loader gives no batches')
        epochs.append(sum(losses) / len(losses))
    return epochs


def _parameter_groups(model: FeatureLiftingSegmentation) -> list[dict[str, Any]]:
    backbone = [] if model.backbone_2d is None else list(model.backbone_2d.parameters())
    known = {id(parameter) for parameter in backbone}
    rest = [x for x in model.parameters() if id(x) not in known]
    return [{'params': backbone, 'lr': BACKBONE_LR}, {'params': rest}]


def _scan_loss(model: FeatureLiftingSegmentation, batch: LiftingBatch) -> Tensor:
    """Cross-entropy of the labeled points of one scan."""
    device = next(model.parameters()).device
    points = batch['points'].to(device, torch.float32)  # (N, ≥ 3)
    images, cameras = batch['images'].to(device), batch['camera_params']
    if len(cameras) != len(images):
        raise ValueError(f'{len(images)} images but {len(cameras)} camera_params')

    # which view sees which point
    intrinsics, poses = (torch.stack(list(x)).to(device, torch.float32) for x in zip(*cameras))
    camera, _ = camera_views(intrinsics, poses, size_of(images))
    xyz = points[:, :3]
    depth = depth_views(batch.get('depth'), len(images), single=False)
    if depth is None:
        depth = zbuffer_views(xyz, camera, Visibility(point_size=_POINT_SIZE))
    views = PosedViews(
        pairs=project_pairs(xyz, camera, depth.to(xyz)),
        world_from_cam=camera.world_from_cam,
        image_size=camera.image_size,
        num_points=len(xyz),
        images=images,
    )

    (logits,) = model.logits({'points': [points], 'views': [views]})
    return masked_cross_entropy(logits, batch['labels'].to(device), model.num_classes)


def train_two_stages(
    config: str | os.PathLike,
    work_dir: str | os.PathLike,
    pretrain_config: str | os.PathLike | None = None,
    options: Mapping[str, Any] | None = None,
    pretrain_options: Mapping[str, Any] | None = None,
) -> Path:
    """Train both stages one after the other, or the second alone.

    Args:
        config: of the second stage, end to end with a learning rate for each part (or with a
            frozen image network: option ``model.image_net.frozen``).
        work_dir: the stages write to ``stage_2d`` and ``stage_3d`` in it.
        pretrain_config: of the first stage; None starts the second one from the weights that
            its own config names.
        options: dotted keys of the second config.
        pretrain_options: dotted keys of the first config.

    Returns:
        The last checkpoint of the second stage.

    Raises:
        FileNotFoundError: no such config, or a stage that left no checkpoint.
    """
    work_dir = Path(work_dir)
    options = dict(options or {})
    if pretrain_config is not None:
        options['load_from'] = str(
            _train(pretrain_config, work_dir / 'stage_2d', dict(pretrain_options or {}))
        )
    return _train(config, work_dir / 'stage_3d', options)


def _train(config: str | os.PathLike, work_dir: Path, options: dict[str, Any]) -> Path:
    cfg = load_config(Path(config), options)
    cfg.work_dir = str(work_dir)
    cfg.setdefault('launcher', 'none')
    runner = build_runner(cfg)
    with tended_workers(runner):
        runner.train()
    named = work_dir / 'last_checkpoint'
    if not named.is_file():
        raise FileNotFoundError(f'{work_dir}: training left no checkpoint')
    return Path(named.read_text(encoding='utf-8').strip())
