"""What an extraction run is asked to do: one flat set of settings, from YAML and arguments.

Enters: ``configs/clip_feat.yaml`` (read with the safe loader) and overrides by name. Leaves: a
checked ``ExtractionSettings``. Unknown names and wrong types are errors, so that a misspelt setting
never falls back to a default in silence.
"""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from oneformer3d.files.errors import one_line
from oneformer3d.files.left_out import LossRules

if TYPE_CHECKING:
    import torch

STORES = ('lmdb', 'npz', 'h5')
FRAME_SELECTIONS = ('first', 'uniform', 'random')
VIS_METHODS = ('pca', 'tsne')
DTYPES = ('fp32', 'fp16', 'bf16')


@dataclass(frozen=True, kw_only=True)
class ExtractionSettings:
    """Settings of one extraction.

    Attributes:
        scenes_file: text file with one scene per line; None takes all scenes of the data root.
        data_root: folder with infos, points and images; None infers it from ``scenes_file``.
        output_dir: where everything is written.
        store_dir: the feature store; None is ``output_dir`` itself.
        store: ``lmdb``, or ``npz`` or ``h5`` to export the store to these files at the end, too.
        frames_per_scene: how many, 0 for all.
        frame_select: ``first``, ``uniform`` (evenly over the scan) or ``random`` (drawn by
            ``seed``).
        seed: of the drawn frames, of random weights and of the projection without a head.
        model, weights, mode, attn_mode, input_size, layers, dtype, compute_dtype,
        allow_download: as in ``ClipEncoder``.
        pixel_shuffle: factor the stored map goes through; None is 2 for tokens, 1 for ``clip``.
        exact_resize: decode whole images and resize them as the encoder itself does, so that
            the store equals one filled online; else JPEGs are decoded small and in 8 bit.
        batch_size: images of one forward pass.
        workers: threads that decode images.
        threads: CPU threads of the encoder; None leaves it to torch. Their number may change the
            last bits of the features.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:0``.
        resume: skip the frames that the store has.
        strict: end at the first frame that cannot be used, instead of skipping it.
        max_lost: share of such frames above which the tool ends with status 1; what was stored
            stays.
        vis: write a picture of every frame's features.
        vis_method: ``pca`` or ``tsne`` pseudo-colours.
        point_files: write ``frame_<idx>.npz`` with features at the scene's points; None does so
            when ``vis`` is on.
        head: checkpoint whose trained layers give ``pts_feat``; None is a seeded projection.
        rate_points: points per scene that the valid-projection rate is measured on, 0 for none.
    """

    scenes_file: str | None = None
    data_root: str | None = None
    output_dir: str = 'outputs/clip_feat'
    store_dir: str | None = None
    store: str = 'lmdb'
    frames_per_scene: int = 0
    frame_select: str = 'first'
    seed: int = 0
    model: str = 'ViT-B-16'
    weights: str = 'laion2b_s34b_b88k'
    mode: str | None = None
    attn_mode: str | None = None
    input_size: int | list | None = None
    layers: int | str | list | None = None
    dtype: str = 'fp16'
    compute_dtype: str | None = None
    allow_download: bool = True
    pixel_shuffle: int | None = None
    exact_resize: bool = False
    batch_size: int = 16
    workers: int = 2
    threads: int | None = None
    device: str = 'auto'
    resume: bool = False
    strict: bool = False
    max_lost: float = 0.2
    vis: bool = False
    vis_method: str = 'pca'
    point_files: bool | None = None
    head: str | None = None
    rate_points: int = 20_000

    def __post_init__(self) -> None:
        for name, known in (
            ('store', STORES),
            ('frame_select', FRAME_SELECTIONS),
            ('vis_method', VIS_METHODS),
            ('dtype', DTYPES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f'{name}: expected one of {known}, got {getattr(self, name)!r}')

        for name, least in (
            ('frames_per_scene', 0),
            ('rate_points', 0),
            ('batch_size', 1),
            ('workers', 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f'{name}: expected {least} or more, got {getattr(self, name)}')

        LossRules(self.strict, self.max_lost)  # refuses what is no share
        if self.scenes_file is None and self.data_root is None:
            raise ValueError('give a scenes_file or a data_root')
        if self.store == 'npz' and self.writes_points and self.store_path == Path(self.output_dir):
            raise ValueError(
                'npz files of the store would mix with the files of single frames; give store_dir'
            )

    @property
    def writes_points(self) -> bool:
        """Whether files with features at the points are written."""
        return self.vis if self.point_files is None else self.point_files

    @property
    def store_path(self) -> Path:
        """Folder of the store."""
        return Path(self.output_dir if self.store_dir is None else self.store_dir)

    def torch_device(self, local_rank: int = 0) -> 'torch.device':
        """The device meant; ranks of one machine take its GPUs in turn.

        Raises:
            ValueError: a device that is not there.
        """
        import torch

        available = torch.cuda.is_available()
        if self.device == 'cpu' or (self.device == 'auto' and not available):
            return torch.device('cpu')
        if not available:
            raise ValueError(f'device: no CUDA device here, got {self.device!r}')
        if self.device in ('auto', 'cuda'):
            return torch.device('cuda', local_rank % torch.cuda.device_count())
        try:
            return torch.device(self.device)
        except RuntimeError as error:
            raise ValueError(f'device: {self.device!r} is no device') from error


def make_settings(*layers: Mapping[str, Any], source: str = 'settings') -> ExtractionSettings:
    """Settings from mappings, later ones winning.

    Raises:
        ValueError: unknown names, wrong types or values.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    types_of = typing.get_type_hints(ExtractionSettings)
    unknown = sorted(set(merged) - set(types_of))
    if unknown:
        raise ValueError(f'{source}: unknown settings {", ".join(map(str, unknown))}')
    for name, value in merged.items():
        merged[name] = _checked(name, value, types_of[name], source)
    return ExtractionSettings(**merged)


def settings_of_words(words: Sequence[str]) -> dict[str, Any]:
    """Settings that are written ``name=value``, as Hydra has them; the values are YAML.

    Raises:
        ValueError: no ``=``, or a value that is no YAML; names are checked by ``make_settings``.

    Example:
        >>> settings_of_words(['layers=[9, 11]', 'dtype=bf16', 'vis=true', 'head=null'])
        {'layers': [9, 11], 'dtype': 'bf16', 'vis': True, 'head': None}
    """
    types_of = setting_types()
    settings: dict[str, Any] = {}
    for word in words:
        name, separator, text = word.partition('=')
        if not separator:
            raise ValueError(f'{word}: expected a setting as name=value')
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise ValueError(f'{word}: not readable as YAML: {one_line(error)}') from error

        # a folder that is named by a number stays text
        as_written = value is not None and types_of.get(name) == (str,)
        settings[name] = text if as_written else value
    return settings


def setting_types() -> dict[str, tuple[type, ...]]:
    """Name → types that a value may have (None left out), in the order of the settings."""
    hints = typing.get_type_hints(ExtractionSettings)
    return {field.name: _alternatives(hints[field.name])[0] for field in fields(ExtractionSettings)}


def _alternatives(hint: Any) -> tuple[tuple[type, ...], bool]:
    """Types of an annotation without None, and whether None is one of them."""
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(part for part in parts if part is not type(None)), type(None) in parts


def _checked(name: str, value: Any, hint: Any, source: str) -> Any:
    known, optional = _alternatives(hint)
    if value is None and optional:
        return None
    if bool in known and value in (0, 1) and type(value) in (bool, int):
        return bool(value)  # --vis 1
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, tuple):
        value = list(value)
    if type(value) not in known:
        wanted = ' or '.join(kind.__name__ for kind in known)
        raise ValueError(f'{source}: {name} should be {wanted}, got {value!r}')
    return value
