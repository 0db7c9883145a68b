"""Load the weights of an open_clip model.

Enters: a model (an open_clip name or a model config) and where its weights are: a tag, a file, or
'none'. Leaves: the model in evaluation mode with all that features depend on. A tag is looked up
in the local caches before anything is built; what is missing is an immediate error. Files are
read with ``weights_only``, or by TorchScript's own reader, so no code in them runs.
"""

import hashlib
import logging
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from mmengine.logging import print_log
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.factory import load_checkpoint
from torch import Tensor, nn

from oneformer3d.files.checkpoints import read_checkpoint
from oneformer3d.files.errors import one_line

from .tags import find_tag, tag_config

RANDOM_WEIGHTS = 'none'
_WEIGHT_SUFFIXES = ('.pt', '.pth', '.bin', '.safetensors')
_OPENAI_KEYS = ('input_resolution', 'context_length', 'vocab_size')
_MODEL_KEYS = {'embed_dim', 'vision_cfg', 'text_cfg'}
ClipModel = open_clip.CLIP | open_clip.CustomTextCLIP


@dataclass(frozen=True)
class LoadedClip:
    """A CLIP and what its features depend on.

    Attributes:
        model: open_clip's CLIP, float32, frozen, in evaluation mode.
        name: name of the model, for stamps.
        mean, std: of the colours in [0, 1] that the image tower expects.
        extraction: settings that a checkpoint of this package recommends for dense features.
        digest: blake2b of the image tower's state, or of all of ``model`` in ``text_digest``.
    """

    model: ClipModel
    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    digest: str
    extraction: Mapping[str, Any] = field(default_factory=dict)


def load_clip(
    model: str | Mapping[str, Any],
    weights: str | Path,
    allow_download: bool = False,
    quick_gelu: bool | None = None,
) -> LoadedClip:
    """Build an open_clip model and load its weights.

    Args:
        model: open_clip name ('ViT-B-16'), or a model config with embed_dim, vision_cfg and
            text_cfg. A checkpoint that carries its own config is built from that one.
        weights: open_clip tag, path of a file, or 'none' for random weights.
        allow_download: fetch the weights of a tag if they are in no local cache, see ``find_tag``.
        quick_gelu: activation of the transformers; None = what the model, the tag or the file
            (OpenAI's need quick-gelu, which only tags tell open_clip) calls for.

    Raises:
        FileNotFoundError: the file, or the weights of the tag, are not on this machine.
        ValueError: unknown model or tag, unsupported towers, or a file that does not fit.
    """
    name, config = _model_config(model)
    if str(weights) == RANDOM_WEIGHTS:
        print_log(
            f'CLIP {name}: RANDOM weights (weights="none"); its features mean nothing',
            logger='current',
            level=logging.WARNING,
        )
        return _frozen(build_clip(config, quick_gelu), name)

    # a tag of open_clip
    if not _is_path(weights):
        tag = tag_config(name, str(weights))
        path = find_tag(name, str(weights), allow_download)
        wanted = bool(tag.get('quick_gelu', False)) if quick_gelu is None else quick_gelu
        clip = build_clip(config, wanted)
        _load_state(clip, path)
        return _frozen(clip, name, tag.get('mean'), tag.get('std'))

    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file with CLIP weights')

    # a file: OpenAI's archive, a checkpoint of this package, or a state dict
    if _is_torchscript(path):
        state = _torchscript_state(path)
        clip = build_clip(config, True if quick_gelu is None else quick_gelu)
        _load_dict(clip, state, path)
        return _frozen(clip, name)

    checkpoint = {} if path.suffix == '.safetensors' else _read(path)
    if 'model_cfg' in checkpoint:
        return _from_own_checkpoint(checkpoint, path, quick_gelu)

    if quick_gelu is None:
        quick_gelu = True if _is_openai(checkpoint) else None
    clip = build_clip(config, quick_gelu)
    if _is_openai(checkpoint):
        state = {key: value for key, value in checkpoint.items() if key not in _OPENAI_KEYS}
        _load_dict(clip, state, path)
    else:
        _load_state(clip, path)
    return _frozen(clip, name)


def build_clip(config: Mapping[str, Any], quick_gelu: bool | None = None) -> ClipModel:
    """An open_clip CLIP with random weights.

    Args:
        config: open_clip model config: embed_dim, vision_cfg, text_cfg and a few more.
        quick_gelu: overrides the config's.

    Raises:
        ValueError: towers that are loaded from elsewhere or have no dense features.
    """
    config = {key: value for key, value in config.items() if key != 'hf_tokenizer_name'}
    vision, text = config['vision_cfg'], config['text_cfg']
    if vision.get('timm_model_name') or vision.get('attentional_pool'):
        raise ValueError(
            "only open_clip's own ViT and ResNet image towers are supported, not "
            f'{vision.get("timm_model_name") or "attentional pooling"}'
        )
    if text.get('hf_model_name') or text.get('hf_tokenizer_name') or 'multimodal_cfg' in config:
        raise ValueError("only open_clip's own text tower and tokenizer are supported")

    if quick_gelu is not None:
        config['quick_gelu'] = quick_gelu
    custom_text = config.pop('custom_text', False)
    return (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)


def weights_digest(module: nn.Module) -> str:
    """Blake2b (128 bits, hex) over names, shapes and float32 values of a module's state."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        digest.update(f'{name} {tuple(value.shape)} '.encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _bytes(value: Tensor) -> memoryview:
    value = value.detach().cpu()
    if value.is_floating_point():
        value = value.float()
    return value.contiguous().numpy().reshape(-1).data.cast('B')


def _frozen(
    clip: ClipModel,
    name: str,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    extraction: Mapping[str, Any] | None = None,
) -> LoadedClip:
    clip.requires_grad_(False)
    return LoadedClip(
        model=clip.eval(),
        name=name,
        mean=_colour(mean or OPENAI_DATASET_MEAN),
        std=_colour(std or OPENAI_DATASET_STD),
        digest=weights_digest(clip.visual),
        extraction=dict(extraction or {}),
    )


def _colour(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _model_config(model: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if not isinstance(model, str):
        config = dict(model)
        name = str(config.pop('name', 'custom'))
        if not set(config) >= _MODEL_KEYS:
            raise ValueError(f'a CLIP config needs {sorted(_MODEL_KEYS)}, got {sorted(config)}')
        return name, config
    name = model.replace('/', '-')
    config = open_clip.get_model_config(name) if ':' not in name else None
    if config is None:
        raise ValueError(f'{model!r} is no model of open_clip (see open_clip.list_models())')
    return name, config


def _is_path(weights: str | Path) -> bool:
    if isinstance(weights, Path) or Path(weights).is_file():
        return True
    return '/' in weights or Path(weights).suffix in _WEIGHT_SUFFIXES


def _is_openai(checkpoint: Mapping[str, Any]) -> bool:
    return all(key in checkpoint for key in _OPENAI_KEYS)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith('/constants.pkl') for name in archive.namelist())


def _torchscript_state(path: Path) -> dict[str, Tensor]:
    state = torch.jit.load(str(path), map_location='cpu').state_dict()
    skipped = (*_OPENAI_KEYS, 'attn_mask')  # a constant that traced models list as a weight
    return {key: value for key, value in state.items() if key not in skipped}


def _read(path: Path) -> Mapping[str, Any]:
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'{path}: expected a dictionary, got {type(checkpoint).__name__}')
    return checkpoint


def _from_own_checkpoint(
    checkpoint: Mapping[str, Any], path: Path, quick_gelu: bool | None
) -> LoadedClip:
    missing = [key for key in ('name', 'state_dict', 'mean', 'std') if key not in checkpoint]
    if missing:
        raise ValueError(f'{path}: has a model config but no {", ".join(missing)}')
    name, config = _model_config({**checkpoint['model_cfg'], 'name': checkpoint['name']})
    clip = build_clip(config, quick_gelu)
    _load_dict(clip, checkpoint['state_dict'], path)
    extraction = checkpoint.get('extraction', {})
    return _frozen(clip, name, checkpoint['mean'], checkpoint['std'], extraction)


def _load_dict(clip: ClipModel, state: Mapping[str, Tensor], path: Path) -> None:
    try:
        clip.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f'{path}: does not fit the model: {one_line(error)}') from error


def _load_state(clip: ClipModel, path: Path) -> None:
    """Files in any of the layouts that open_clip converts, tables resized to the model."""
    try:
        load_checkpoint(clip, str(path), weights_only=True)
    except (RuntimeError, KeyError, pickle.UnpicklingError, OSError) as error:
        raise ValueError(f'{path}: does not fit the model: {one_line(error)}') from error
