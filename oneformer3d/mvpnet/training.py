"""Training of MVPNet in two stages: the image network on pictures, then everything together.

Enters: configs. Leaves: checkpoints in a work dir. What each stage trains, how fast and for how
long stands in the configs: ``configs/mvpnet_2d_synthetic.py`` and ``configs/mvpnet_synthetic.py``.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneformer3d.engine.cli import load_config
from oneformer3d.engine.launch import build_runner


def train_feature_lifting_model(
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
    cfg = load_config(config, options)
    cfg.work_dir = str(work_dir)
    cfg.setdefault('launcher', 'none')
    build_runner(cfg).train()
    named = work_dir / 'last_checkpoint'
    if not named.is_file():
        raise FileNotFoundError(f'{work_dir}: training left no checkpoint')
    return Path(named.read_text(encoding='utf-8').strip())
