"""What somebody else, such as a segmentor, says of points: a field's classes follow it.

Enters: a file of points with logits, probabilities or labels. Leaves: a ``PointPrior``.

Letters: N points, C classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oneformer3d.lifting.shapes import expect_shape

from ..scene.labelled_points import IGNORE, read_arrays, read_labelled_points


@dataclass(frozen=True, eq=False)
class PointPrior:
    """Class probabilities (N, C) that somebody else gives points (N, 3), such as a segmentor."""

    points: Tensor
    probabilities: Tensor

    def __post_init__(self) -> None:
        num_points, _ = expect_shape('points of a prior', self.points, 'N 3')
        expect_shape('probabilities of a prior', self.probabilities, 'N C', N=num_points)


def read_prior(path: str | Path, num_classes: int, certainty: float = 0.9) -> PointPrior:
    """Read classes of points as a prior.

    Args:
        path: ``.npz`` with points and 'logits' or 'probabilities' (N, C), or any file of labelled
            points (``labelled_points.read_labelled_points``), whose class then gets ``certainty``.
        num_classes: C.
        certainty: probability of a class that is only named.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another number of classes; names the file.
    """
    path = Path(path)
    if path.suffix == '.npz' and path.is_file():
        prior = _read_probabilities(path, num_classes)
        if prior is not None:
            return prior

    points = read_labelled_points(path)
    if points.semantic is None:
        raise ValueError(f'{path}: its points have no classes')
    known = points.semantic != IGNORE
    labels = points.semantic[known]
    if len(labels) and int(labels.max()) >= num_classes:
        raise ValueError(f'{path}: class {int(labels.max())} of {num_classes} classes')
    return PointPrior(points.xyz[known], _smoothed(labels, num_classes, certainty))


def _read_probabilities(path: Path, num_classes: int) -> PointPrior | None:
    """The prior of a file with 'logits' or 'probabilities' of its points, None of another."""
    arrays = read_arrays(path)
    name = next((name for name in ('logits', 'probabilities') if name in arrays), None)
    if name is None or 'points' not in arrays:
        return None
    values = torch.from_numpy(arrays[name].astype(np.float32))
    expect_shape(f'{path}: {name}', values, 'N C', C=num_classes)
    points = torch.from_numpy(arrays['points'][:, :3].astype(np.float32))
    return PointPrior(points, values.softmax(-1) if name == 'logits' else values)


def prior_of_labels(points: Tensor, labels: Tensor | None, num_classes: int) -> PointPrior | None:
    """The labels (N,) of points (N, 3), 255 for none, as a prior; None where none is known.

    Raises:
        ValueError: a label beyond the C there are.
    """
    if labels is None:
        return None
    labels = torch.as_tensor(labels).long()
    known = labels != IGNORE
    if not known.any():
        return None
    if not 0 <= int(labels[known].min()) <= int(labels[known].max()) < num_classes:
        raise ValueError(f'labels of points must be within 0…{num_classes - 1}, or {IGNORE}')
    return PointPrior(points[known], _smoothed(labels[known], num_classes, 1.0))


def _smoothed(labels: Tensor, num_classes: int, certainty: float) -> Tensor:
    """Probabilities (N, C): ``certainty`` for the label, the rest spread over the others."""
    rest = (1 - certainty) / max(num_classes - 1, 1)
    spread = torch.full((len(labels), num_classes), rest)
    return spread.scatter(1, labels[:, None], certainty)
