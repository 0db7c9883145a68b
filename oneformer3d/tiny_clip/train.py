"""A small CLIP that is trained in minutes on a CPU, so that features mean something offline.

Enters: ``Regions`` of posed images. Leaves: open_clip's CLIP (ResNet image tower, small text tower)
trained with the contrastive loss on crops and captions, and a checkpoint that
``ClipEncoder(weights=path)`` reads: model config, weights, colours and the settings recommended for
dense features.

On request it also learns what is nothing in particular: windows of whatever is there are captioned
with neutral words, and other words of the tokenizer stand among the captions without any image. A
word that it never read is then like no image, and less like it than the neutral words.

Letters: B crops of a batch, T different captions, D width of the shared space.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import CLIP, SimpleTokenizer
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from oneformer3d.clip.text import PROMPT_TEMPLATES, tokenize
from oneformer3d.clip.weights import build_clip
from oneformer3d.files.checkpoints import write_checkpoint
from oneformer3d.files.devices import multiplies_bfloat16

from .crops import (
    Regions,
    anywhere,
    augment,
    class_names,
    class_weights,
    cut_crops,
    random_windows,
)

NAME = 'tiny-clip'
CAPTION_TEMPLATES = (*PROMPT_TEMPLATES, '{}', 'this is a {}', 'a small photo of a {}')
NEUTRAL = ('object', 'things', 'stuff', 'texture')
NOT_READ = ('elephant', 'bicycle', 'pool', 'traffic', 'horse')  # kept for tests of what is unknown
ON_THE_WALL = ('picture', 'window', 'whiteboard')


@dataclass(frozen=True)
class TinyClipSettings:
    """How the small CLIP is trained.

    Attributes:
        steps, batch_size: of the optimiser; B crops each.
        text_steps: on captions alone, before.
        crop_size: side of a crop in pixels, a multiple of 32.
        width: of the ResNet tower's stem output.
        layers: blocks in each of its four layers.
        learning_rate, weight_decay: of AdamW, the rate of convolutions three times as high; one
            cosine with a short warm-up.
        bf16: image tower in bfloat16; None where the CPU multiplies it, 1.6 times as fast there.
        neutral_share: of the crops, which are windows of anything under neutral words.
        num_others: captions of a batch that belong to no crop.
        seed: of weights and crops.
    """

    steps: int = 1600
    batch_size: int = 32
    text_steps: int = 60
    crop_size: int = 96
    width: int = 16
    layers: tuple[int, int, int, int] = (1, 1, 1, 1)
    learning_rate: float = 4e-4
    weight_decay: float = 0.05
    bf16: bool | None = None
    neutral_share: float = 0.0
    num_others: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for settings that cannot be trained with."""
        if self.steps < 1 or self.batch_size < 2 or self.crop_size < 32 or self.crop_size % 32:
            raise ValueError(
                'expected steps of 1 or more, batches of 2 or more and crops of a multiple of 32 '
                f'pixels, got {self.steps}, {self.batch_size} and {self.crop_size}'
            )


def train_tiny_clip(
    regions: Regions,
    settings: TinyClipSettings,
    report: Callable[[int, float], None] | None = None,
) -> CLIP:
    """Train from scratch.

    Args:
        regions: of the training images.
        settings: see there.
        report: called with the step and its loss.

    Returns:
        open_clip's CLIP in evaluation mode.
    """
    clip = build_tiny_clip(settings).train()
    rng = np.random.default_rng(settings.seed)
    names = class_names(regions.table)
    weights = class_weights(regions.label, len(names))
    groups = _parameter_groups(clip, settings)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [g['lr'] for g in groups], total_steps=max(settings.steps, 2), pct_start=0.1
    )
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    use_bf16 = multiplies_bfloat16('cpu') if settings.bf16 is None else settings.bf16
    others = other_words(names) if settings.num_others else []
    train_text_tower(clip, names, settings)
    clip.token_embedding.requires_grad_(False)  # three quarters of all parameters, learnt above
    for step in range(settings.steps):
        indices = rng.choice(len(regions), settings.batch_size, p=weights)
        windows = random_windows(regions, indices, settings.crop_size, rng)
        labels, words = regions.label[indices], names  # (B,)
        if settings.neutral_share:
            # neutral crops are the class after the last
            is_neutral = rng.random(len(indices)) < settings.neutral_share
            windows[is_neutral] = anywhere(regions, int(is_neutral.sum()), settings.crop_size, rng)
            labels = np.where(is_neutral, len(names), labels)
            words = [*names, NEUTRAL[rng.integers(len(NEUTRAL))]]
        crops = augment(cut_crops(regions, indices, windows, settings.crop_size), rng)
        present, caption = np.unique(labels, return_inverse=True)

        # captions without a crop come last
        spoken = [words[int(label)] for label in present]
        if others:
            spoken += rng.choice(others, settings.num_others, replace=False).tolist()
        captions = [random_caption(word, rng) for word in spoken]  # T
        images = torch.from_numpy(crops).permute(0, 3, 1, 2)
        images = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
        # the fused attention is slow for the few tokens of the last pooling
        with (
            sdpa_kernel(SDPBackend.MATH),
            torch.autocast('cpu', torch.bfloat16, enabled=use_bf16),
        ):
            seen = clip.encode_image(images)
        loss = contrastive_loss(
            F.normalize(seen.float(), dim=-1),
            clip.encode_text(tokenize(clip, captions), normalize=True),
            torch.from_numpy(caption),
            clip.logit_scale.exp().clamp(max=100),
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if report is not None:
            report(step, float(loss.detach()))
    return clip.eval()


def train_text_tower(clip: CLIP, names: Sequence[str], settings: TinyClipSettings) -> None:
    """Teach the text tower first that two captions of one class belong together; takes seconds.

    At random weights captions differ by their template more than by the class, and an image tower
    that is pulled towards such vectors wastes most of its steps.
    """
    rng = np.random.default_rng([settings.seed, 1])
    names = [*names, *NEUTRAL] if settings.neutral_share else names
    optimizer = torch.optim.AdamW(clip.parameters(), settings.learning_rate, weight_decay=0.0)
    caption = torch.arange(len(names))
    for _ in range(settings.text_steps):
        first, second = (
            clip.encode_text(
                tokenize(clip, [random_caption(n, rng) for n in names]), normalize=True
            )
            for _ in range(2)
        )  # (classes, D) each
        loss = contrastive_loss(first, second, caption, clip.logit_scale.detach().exp())

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def contrastive_loss(images: Tensor, texts: Tensor, caption: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric loss where several images may share a caption: all of them are positives.

    Args:
        images: (B, D) unit vectors.
        texts: (T, D) unit vectors of different captions.
        caption: (B,) int64 row of ``texts`` each image belongs to; rows without an image are
            what no image should be like.
        scale: of the cosines.

    Returns:
        Mean of cross-entropy image → caption and of −log p(image | caption), averaged over the
        images of a caption and then over captions.
    """
    logits = scale * images @ texts.t()  # (B, T)
    from_images = F.cross_entropy(logits, caption)

    # −log p(image | caption), the mean over a caption's own images
    positive = F.one_hot(caption, len(texts)).to(logits.dtype)
    num_images = positive.sum(0)  # (T,)
    log_share = (logits.log_softmax(dim=0) * positive).sum(0) / num_images.clamp(min=1)
    return (from_images - log_share[num_images > 0].mean()) / 2


def tiny_config(settings: TinyClipSettings) -> dict[str, Any]:
    """The open_clip model config."""
    return {
        'embed_dim': 128,
        'vision_cfg': {
            'image_size': settings.crop_size,
            'layers': list(settings.layers),
            'width': settings.width,
        },
        'text_cfg': {
            'context_length': 16,
            'vocab_size': 49408,
            'width': 64,
            'heads': 2,
            'layers': 2,
        },
    }


def build_tiny_clip(settings: TinyClipSettings) -> CLIP:
    """The model with random weights drawn from the seed; torch's own generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        clip = build_clip(tiny_config(settings))
    assert isinstance(clip, CLIP)  # the config asks for no text tower of its own
    for name, parameter in clip.visual.named_parameters():
        if name.endswith('bn3.weight'):  # zero delays what so shallow a tower has to learn
            nn.init.ones_(parameter)
    # torch's declarations of Module.to leave memory_format out
    return clip.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def save_tiny_clip(
    path: str | Path,
    clip: nn.Module,
    settings: TinyClipSettings,
    extraction: Mapping[str, Any],
    report: Mapping[str, Any],
) -> None:
    """Write a checkpoint, atomically; it holds tensors, numbers and text only.

    Args:
        path: of the file.
        clip: the trained model.
        settings: it was trained with.
        extraction: recommended settings of ``ClipEncoder``: mode, layers, input_size.
        report: measurements.
    """
    checkpoint = {
        'name': NAME,
        'model_cfg': tiny_config(settings),
        'mean': OPENAI_DATASET_MEAN,
        'std': OPENAI_DATASET_STD,
        'extraction': dict(extraction),
        'settings': {key: _plain(value) for key, value in vars(settings).items()},
        'report': dict(report),
        'state_dict': {key: value.contiguous() for key, value in clip.state_dict().items()},
    }
    write_checkpoint(path, checkpoint)


def other_words(names: Sequence[str]) -> list[str]:
    """Words of the tokenizer of one token each, but for those of names and ``NOT_READ``."""
    known = {word for name in (*names, *NEUTRAL, *NOT_READ) for word in name.split()}
    words = [token.removesuffix('</w>') for token in SimpleTokenizer().encoder if '</w>' in token]
    return [word for word in words if word.isalpha() and len(word) > 3 and word not in known]


def random_caption(name: str, rng: np.random.Generator) -> str:
    """A sentence about one class, e.g. 'a picture on the wall'."""
    templates: Sequence[str] = CAPTION_TEMPLATES
    if name in ON_THE_WALL:
        templates = (*templates, 'a {} on the wall')
    return templates[rng.integers(len(templates))].format(name)


def _parameter_groups(clip: nn.Module, settings: TinyClipSettings) -> list[dict[str, Any]]:
    """Kernels, matrices and the rest, which has no weight decay."""
    kernels, matrices, others = [], [], []
    for name, parameter in clip.named_parameters():
        if parameter.ndim == 4:
            kernels.append(parameter)
        elif parameter.ndim == 2 and 'embedding' not in name:
            matrices.append(parameter)
        else:
            others.append(parameter)

    rate, decay = settings.learning_rate, settings.weight_decay
    return [
        {'params': kernels, 'lr': 3 * rate, 'weight_decay': decay},
        {'params': matrices, 'lr': rate, 'weight_decay': decay},
        {'params': others, 'lr': rate, 'weight_decay': 0.0},
    ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
