"""What a fitted field says of points, as files: what ``tools/query_field.py`` writes.

Enters: a ``FittedField``, points (N, 3) in world metres, phrases. Leaves: ``points.npz``,
``points.ply``, ``features.npz``, ``text.npz``, ``text.ply``, and a few numbers about them.

Letters: N points.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.clip.text import PROMPT_TEMPLATES, encode_text
from oneformer3d.files.atomic import atomic_path
from oneformer3d.files.ply import write_ply
from oneformer3d.store import StampMismatchError
from oneformer3d.visualization.features import similarity_colors

from ..fitting.fitted import FittedField
from .instances import query_classes
from .pictures import write_labelled_cloud
from .query import query_features_at_points, query_opacity_at_points
from .text import TextQuery, query_lerf_with_text


def write_classes(out: Path, fitted: FittedField, points: Tensor) -> float:
    """Write classes, and instances where the field knows some; returns the share observed."""
    result = query_classes(fitted, points)
    names = np.array(fitted.class_names)
    write_rows(out / 'points.npz', points, result, class_names=names)
    write_labelled_cloud(out / 'points.ply', points, result, fitted.palette)
    return float(result['observed'].float().mean()) if len(points) else 0.0


def write_observed(out: Path, fitted: FittedField, points: Tensor) -> float:
    """Write how opaque a field without classes is at points; returns the share observed."""
    result = query_opacity_at_points(fitted, points)
    write_rows(out / 'points.npz', points, result)
    shades = similarity_colors(result['confidence'].numpy(), 0.0, 1.0)
    columns = {name: values.numpy() for name, values in result.items()}
    write_ply(out / 'points.ply', points.numpy(), shades, columns)
    return float(result['observed'].float().mean()) if len(points) else 0.0


def write_features(out: Path, fitted: FittedField, points: Tensor) -> None:
    """Write distilled features in half precision, a file for each of the field's heads of them."""
    names = [name for name in fitted.field.head_nets if name.startswith('features')]
    for name in names or ['features']:  # a field without any is refused there
        result = query_features_at_points(fitted, points, name)
        write_rows(out / f'{name}.npz', points, {**result, 'features': result['features'].half()})


def write_relevancy(
    out: Path,
    fitted: FittedField,
    points: Tensor,
    text: TextQuery,
    threshold: float,
    temperature: float,
) -> list[tuple[str, float, float]]:
    """Write the relevancy of phrases.

    Returns:
        Each phrase with its highest relevancy and the share of points that it fits best, above the
        threshold.
    """
    result = query_lerf_with_text(
        fitted,
        points,
        text.vectors,
        threshold=threshold,
        negatives=text.negatives,
        temperature=temperature,
    )
    write_rows(out / 'text.npz', points, result, phrases=np.array(text.phrases))
    write_labelled_cloud(out / 'text.ply', points, result, None)

    rows = []
    for column, phrase in enumerate(text.phrases):
        found = result['valid_mask'] & (result['labels'] == column)
        if not len(points):
            rows.append((phrase, 0.0, 0.0))
            continue
        highest = float(result['relevancy_matrix'][:, column].max())
        rows.append((phrase, highest, float(found.float().mean())))
    return rows


def encode_phrases(
    source: str,
    fitted: FittedField,
    phrases: Sequence[str],
    negatives: Sequence[str],
    model: str,
    weights: str | Path | None,
    templates: Sequence[str] = PROMPT_TEMPLATES,
) -> TextQuery:
    """Encode phrases by the CLIP that a field learnt from.

    Args:
        source: name of the field in errors.
        fitted: the field.
        phrases, negatives: to encode.
        model, weights: of the CLIP.
        templates: sentences that phrases are put into, with one {} each.

    Raises:
        ValueError: a field without text space, or no weights.
        StampMismatchError: the weights of another CLIP.
    """
    encoder = phrase_encoder(source, fitted, model, weights)
    vectors, others = (
        encode_text(encoder.clip, texts, templates) for texts in (phrases, negatives)
    )
    return TextQuery(tuple(phrases), vectors, others)


def phrase_encoder(
    source: str, fitted: FittedField, model: str, weights: str | Path | None
) -> ClipEncoder:
    """The CLIP that a field learnt from, to read phrases; raises as ``encode_phrases``."""
    read_text = [stamp for stamp in fitted.stamps.values() if stamp.mode == 'clip']
    stamp = fitted.language_stamp or (read_text[0] if read_text else None)
    if stamp is None or stamp.mode != 'clip':
        raise ValueError(
            f'{source}: learnt no features of a text space; fit with --method lerf, or with '
            'features of mode clip'
        )
    if weights is None:
        raise ValueError('--text needs --weights of the CLIP that the field learnt from')
    encoder = ClipEncoder(model, weights, mode='clip')
    if encoder.weights_digest != stamp.weights_digest:
        raise StampMismatchError(
            f'{source}: learnt from {stamp.encoder} ({stamp.weights_digest}), the text would '
            f'be read by {encoder.name} ({encoder.weights_digest})'
        )
    return encoder


def write_rows(path: Path, points: Tensor, result: dict[str, Tensor], **more: np.ndarray) -> None:
    """Write points with all that is said of them, as arrays."""
    arrays = {name: values.numpy() for name, values in result.items()}
    with atomic_path(path) as temporary:
        everything = {'points': points.numpy(), **arrays, **more}
        np.savez_compressed(temporary, allow_pickle=False, **everything)
