"""From a folder of frames to a fitted field: what ``tools/fit_field.py`` runs.

Enters: a ``FitJob``: folders, files and settings. Leaves: the scene and its ``FittedField``, whose
checkpoint lies in the job's folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.files.devices import pick_device

from ..scene.folder import load_field_scene
from ..scene.language import with_language, write_pyramids
from ..scene.scene import FieldScene
from .field_file import load_field
from .fitted import FittedField, add_feature_head
from .loop import fit_field
from .prior import read_prior
from .settings import FitSettings


@dataclass(frozen=True)
class FitJob:
    """What to fit, and where.

    Attributes:
        folder: posed RGB-D frames, or ``<data root>/<scene>``.
        out: folder of the field.
        settings: of the fit.
        stores: feature stores with the frames, by the type of their features, for 'feature_field'.
        weights, model: of the CLIP whose embeddings of crops 'lerf' learns.
        prior: file with classes of points, see ``read_prior``.
        start: a fitted field that gets one more head of features and stays as it is.
        reading: how the folder is read, options of ``load_posed_rgbd``.
        resume: go on from a checkpoint in ``out``.
        device: to fit on, 'auto' for a GPU where there is one.
    """

    folder: str | Path
    out: str | Path
    settings: FitSettings
    stores: Mapping[str, str | Path] = field(default_factory=dict)
    weights: str | Path | None = None
    model: str = 'ViT-B-16'
    prior: str | Path | None = None
    start: str | Path | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = True
    device: str = 'auto'


def run_fit(job: FitJob) -> tuple[FieldScene, FittedField]:
    """Fit a field to a folder of frames, with progress bars; interrupted, it can be run again.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: inputs that do not fit the method or each other.
    """
    settings = job.settings
    device = pick_device(job.device)
    scene = load_field_scene(
        job.folder,
        stores=job.stores,
        labels=settings.labels,
        class_table=settings.class_table,
        max_side=settings.max_side,
        read_all=True,
        **job.reading,
    )
    if settings.method == 'lerf':
        scene = _embed_crops(scene, job, device)
    prior = None if job.prior is None else read_prior(job.prior, len(scene.class_names))
    start = None if job.start is None else _with_new_head(job.start, scene, settings)

    with tqdm(total=settings.steps, desc=scene.name, unit='step') as bar:

        def progress(step: int, values: Mapping[str, float]) -> None:
            bar.update(step - bar.n)
            shown = {k: values[k] for k in ('psnr', 'held_out_psnr') if k in values}
            bar.set_postfix({k: f'{v:.2f}' for k, v in shown.items()}, refresh=False)

        fitted = fit_field(
            scene,
            settings,
            job.out,
            resume=job.resume,
            prior=prior,
            start=start,
            device=device,
            on_step=progress,
        )
    return scene, fitted


def _embed_crops(scene: FieldScene, job: FitJob, device: torch.device) -> FieldScene:
    """The scene with CLIP embeddings of crops, made where they are not there yet."""
    if job.weights is None:
        raise ValueError('method lerf needs --weights of a CLIP')
    # crops go in at the size that the model was trained with, not at one for dense maps
    size = ClipEncoder(job.model, job.weights, mode='clip').visual.image_size
    encoder = ClipEncoder(job.model, job.weights, mode='clip', input_size=size, device=device)
    folder, scales = Path(job.out) / 'crops', job.settings.language_scales
    with tqdm(total=len(scene), desc='CLIP of crops', unit='view') as bar:
        store = write_pyramids(scene, encoder, folder, scales, on_view=bar.update)
    return with_language(scene, store)


def _with_new_head(path: str | Path, scene: FieldScene, settings: FitSettings) -> FittedField:
    """A fitted field with one more head for each store's features."""
    if not scene.stamps:
        raise ValueError('--start adds a head of features: give their --store')
    fitted, _ = load_field(path)
    if fitted.scene != scene.name:
        raise ValueError(f'{path}: is a field of {fitted.scene}, not of {scene.name}')

    options = settings.field_options.get('features', {})
    for kind, stamp in scene.stamps.items():
        is_first = 'features' not in fitted.field.head_nets and len(scene.stamps) == 1
        name = 'features' if is_first else f'features_{kind.lower()}'
        more = {**options, 'feature_type': kind}
        fitted = add_feature_head(fitted, name, stamp.token_channels, stamp, **more)
    return fitted


def parse_stores(words: Sequence[str]) -> dict[str, str]:
    """Paths of stores by the type of their features; a path alone is CLIP's.

    Raises:
        ValueError: a type that is no word, or twice the same.

    Example:
        >>> parse_stores(['outputs/clip', 'DINO=outputs/dino'])
        {'CLIP': 'outputs/clip', 'DINO': 'outputs/dino'}
    """
    stores: dict[str, str] = {}
    for word in words:
        kind, equals, path = word.partition('=')
        if not equals or '/' in kind:  # a path with an equals sign
            kind, path = 'CLIP', word
        if not kind.isalnum() or kind == 'DINOCLIP':
            raise ValueError(f'--store {word}: expected a type as CLIP= or DINO=, one of each')
        if kind in stores:
            raise ValueError(f'--store {word}: there is a store of {kind} already')
        stores[kind] = path
    return stores
