"""Training ``ClipDetector`` on key frames, with a checkpoint that goes on exactly.

Enters: a detector and a ``ClipFolder``. Leaves: the detector trained, a checkpoint, frame-mAP.

Letters: B clips.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from oneformer3d.files.checkpoints import read_checkpoint, write_checkpoint

from .boxes import xyxy_from_xyzr
from .clip_detector import ClipDetector
from .clips import ClipFolder
from .decoder import detections
from .tube_loss import TubeLossWeights, tube_losses

CHECKPOINT_NAME = 'stm_clips.pth'
_FORMAT = 'training of a clip detector'
_SAVE_SECONDS = 60.0
_MAX_NORM = 10.0  # of the gradient
_SEED_STRIDE = 1_000_003


@dataclass(frozen=True)
class ClipTraining:
    """How a detector is trained.

    Attributes:
        steps, batch_size: of AdamW; clips of a step.
        learning_rate, weight_decay: of it; the rate rises over a tenth of the steps and falls to 0.
        seed: of the order of the clips.
    """

    steps: int = 1000
    batch_size: int = 4
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or not self.learning_rate > 0:
            raise ValueError(f'expected at least one step of one clip and a rate above 0: {self}')


def train_clip_detector(
    detector: ClipDetector,
    clips: ClipFolder,
    training: ClipTraining,
    out: str | Path,
    *,
    resume: bool = True,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Train in place and write ``stm_clips.pth``, every minute and at the end.

    Interrupted, it goes on from the last of them.

    Args:
        detector: on the device to train on.
        clips: key frames to learn from.
        training: how.
        out: folder of the checkpoint.
        resume: go on from the checkpoint there, to the same numbers as without the break.
        on_step: called with the number of finished steps and the loss.

    Raises:
        ValueError: no key frames, a checkpoint of another training, or a loss that is not finite.
    """
    if not len(clips):
        raise ValueError('no key frames to learn from')
    optimizer = torch.optim.AdamW(
        detector.parameters(), training.learning_rate, weight_decay=training.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=max(2, training.steps), pct_start=0.1
    )
    states = {'detector': detector, 'optimizer': optimizer, 'schedule': schedule}
    made_of = {**asdict(training), **asdict(clips.settings), 'key_frames': len(clips)}
    path, first = Path(out) / CHECKPOINT_NAME, 0
    if resume and path.is_file():
        first = _read(path, states, made_of)

    device = next(detector.parameters()).device
    size, saved = clips.settings.image_size, time.monotonic()
    detector.train()
    try:
        for step in range(first, training.steps):
            batch, tubes = clips.batch(clip_indices(step, len(clips), training))
            terms = tube_losses(detector(batch.to(device)), tubes, size, TubeLossWeights())
            loss = torch.stack(list(terms.values())).sum()
            if not torch.isfinite(loss):
                raise ValueError(f'the loss is not finite at step {step}')

            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(detector.parameters(), _MAX_NORM)
            optimizer.step()
            schedule.step()

            is_last = step + 1 == training.steps
            if is_last or time.monotonic() - saved > _SAVE_SECONDS:
                _write(path, states, made_of, step + 1)
                saved = time.monotonic()
            if on_step is not None:
                on_step(step + 1, float(loss.detach()))
    finally:
        detector.eval()


def clip_indices(step: int, num_clips: int, training: ClipTraining) -> list[int]:
    """Key frames of a step: all of them in random order, then all again in another.

    Example:
        >>> training = ClipTraining(batch_size=2)
        >>> sorted(clip_indices(0, 4, training) + clip_indices(1, 4, training))
        [0, 1, 2, 3]
    """
    places = range(step * training.batch_size, (step + 1) * training.batch_size)
    laps = {place // num_clips for place in places}
    orders = {lap: _order(lap, num_clips, training.seed) for lap in laps}
    return [orders[place // num_clips][place % num_clips] for place in places]


@torch.no_grad()
def detect_clips(
    detector: ClipDetector, clips: ClipFolder, batch_size: int = 4
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes (K, 4) in shares of the image and action scores (K, A) of every key frame."""
    device, found = next(detector.parameters()).device, []
    height, width = clips.settings.image_size
    scale = torch.tensor([width, height, width, height])
    was_training = detector.training
    detector.eval()
    for begin in range(0, len(clips), batch_size):
        indices = range(begin, min(begin + batch_size, len(clips)))
        batch, _ = clips.batch(indices)
        for xyzr, _, actions in detections(detector(batch.to(device))[-1]):
            boxes = (xyxy_from_xyzr(xyzr[:, 0]).cpu() / scale).clamp(0, 1)
            found.append((boxes.numpy(), actions.cpu().numpy()))
    detector.train(was_training)
    return found


def read_detector(path: str | Path, detector: ClipDetector) -> None:
    """Load the weights that a training left; ValueError where they are of another detector."""
    content = read_checkpoint(Path(path))
    if not isinstance(content, dict) or content.get('format') != _FORMAT:
        raise ValueError(f'{path}: not the file of a {_FORMAT}')
    try:
        detector.load_state_dict(content['detector'])
    except RuntimeError as error:
        reason = ' '.join(str(error).split())[:300]
        raise ValueError(f'{path}: is of another detector: {reason}') from error


def _order(lap: int, num_clips: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * _SEED_STRIDE + lap)
    return torch.randperm(num_clips, generator=generator).tolist()


def _write(path: Path, states: dict, made_of: dict, step: int) -> None:
    content = {name: part.state_dict() for name, part in states.items()}
    write_checkpoint(path, {'format': _FORMAT, 'made_of': made_of, 'step': step, **content})


def _read(path: Path, states: dict, made_of: dict) -> int:
    """Go on from a file; returns the steps that are done."""
    read_detector(path, states['detector'])
    content = read_checkpoint(path)
    before = content['made_of']
    differing = [
        f'{name} was {before.get(name)!r}, now {value!r}'
        for name, value in made_of.items()
        if before.get(name) != value
    ]
    if differing:
        raise ValueError(f'{path}: is of another training: {"; ".join(differing)}')
    for name in ('optimizer', 'schedule'):
        states[name].load_state_dict(content[name])
    return content['step']
