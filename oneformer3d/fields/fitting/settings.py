"""How a field is fitted: one flat set of settings, from a YAML file and overrides.

Enters: a file of names and values, and a mapping that wins over it. Leaves: ``FitSettings``,
checked.
"""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any

import yaml

from oneformer3d.files.yaml import read_yaml

from ..losses.total import DEFAULT_WEIGHTS

METHODS = ('semantic_nerf', 'panoptic', 'lerf', 'feature_field')
FIELDS = ('hash', 'mlp')
# How instances are learnt, and the term of each.
INSTANCE_LOSSES = {'contrastive': 'instances', 'slow_fast': 'slow_fast', 'slots': 'slots'}
PROPOSALS = ('auto', 'always', 'never')
# Beside the terms of rays: classes of points, that rays with measured depth end somewhere, and all
# that surfaces teach, a factor on the weights of the same terms of rays.
LOSS_WEIGHTS = {
    **DEFAULT_WEIGHTS,
    'prior': 0.05,
    'opacity': 0.05,
    'surface': 1.0,
}

_ONE_OR_MORE = (
    'steps', 'batch_rays', 'coarse_samples', 'num_probes', 'pool_bytes', 'measure_rays',
    'view_coarse_samples', 'view_fine_samples', 'proposal_final',
)  # fmt: skip
_NOT_NEGATIVE = (
    'surface_pixels', 'surface_range', 'fine_samples', 'warmup_steps', 'save_seconds',
    'weight_decay', 'seed',
)  # fmt: skip
_POSITIVE = (
    'learning_rate', 'grid_learning_rate', 'final_rate', 'guide_range', 'start_density',
    'camera_learning_rate',
)  # fmt: skip


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit; lengths in metres.

    Attributes:
        method: what besides colour and density: 'semantic_nerf' classes, 'panoptic' classes and
            instances, 'lerf' language at any patch size, 'feature_field' features of the store.
        field: 'hash' (grids) or 'mlp' (the perceptrons of the papers).
        field_options: further arguments of the field.
        steps, batch_rays: of the optimiser; rays rendered per step.
        surface_pixels, surface_range: so many more pixels per step teach colours, classes, features
            and language where the sensor met something, drawn within metres of it; see
            ``loss.surface_loss``. Scenes without depth have none.
        coarse_samples, fine_samples: intervals along each ray, even (over occupied cells where they
            are known) and where the matter is, while fitting.
        view_coarse_samples, view_fine_samples: the same when views are rendered afterwards.
        proposals: 'always' places samples by small density networks that learn along (nerfacto's);
            'auto' does so in scenes without depth, 'never' samples evenly and where the field finds
            matter.
        proposal_samples: intervals of the rounds of those networks; the field then gets
            ``proposal_final`` samples.
        proposal_final: of those, for each ray.
        num_probes: positions along each ray at which the occupancy grid is read.
        head_min_weight: features, language and instances are computed only at samples of more
            weight.
        guided: while fitting, put the fine samples around measured depth, within ``guide_range``.
        guide_range: metres before and behind.
        occupancy_resolution, occupancy_margin: cells along the box's longest side, and metres
            around measured points, outside of which a scene with depth is empty; 0 cells for no
            such grid.
        start_density: per metre, in occupied cells before the first step.
        learning_rate, grid_learning_rate: first rates of networks and of grids.
        final_rate: share of them that is left at the end (exponential decay).
        warmup_steps: with rising rates.
        weight_decay: of networks.
        exposure, exposure_learning_rate: learn a gain per view and colour, their mean held at 1,
            for cameras that do not expose all views alike.
        optimize_cameras, camera_learning_rate: learn a small turn and shift of every learnt view,
            for poses that are not exact; views that are held out keep theirs.
        loss_weights: of ``LOSS_WEIGHTS``, those that differ.
        depth_of_points: in a scene without depth, draw it from the scan's own points, where there
            are some.
        near, far: z-depths between which views see.
        holdout_every: every so many-th view is not trained on but measured; 0 for none.
        max_side: images are resized so that no side is longer, None leaves them.
        class_table, labels: see ``folder.load_field_scene``.
        language_scales: crop sides of 'lerf', as shares of the height.
        instance_loss: of 'panoptic': 'contrastive' vectors, 'slow_fast' against a copy that follows
            slowly (Contrastive Lift), or 'slots' by linear assignment (Panoptic Lifting).
        consistent_instances: an instance has the same id in all views; else the rays of a batch
            are of one view and ids are compared within it.
        semantic_mode: what is composited along rays, 'probabilities' or 'logits'.
        semantic_gradient: whether classes shape density: 'density', 'trunk' or 'head'.
        amp: mixed precision (float16 on CUDA, bfloat16 on a CPU).
        seed: of weights, rays and samples.
        pool_bytes: of the images in memory.
        save_seconds: a checkpoint is written at least so often.
        measure_every, measure_rays: how often, and on how many held-out rays, PSNR is measured
            on the way; 0 for never.
    """

    # the field
    method: str = 'semantic_nerf'
    field: str = 'hash'
    field_options: dict = dataclasses.field(default_factory=dict)

    # pixels per step, samples per ray
    steps: int = 5000
    batch_rays: int = 1024
    surface_pixels: int = 2048
    surface_range: float = 0.01
    coarse_samples: int = 32
    fine_samples: int = 32
    view_coarse_samples: int = 32
    view_fine_samples: int = 16
    proposals: str = 'auto'
    proposal_samples: list = dataclasses.field(default_factory=lambda: [64, 32])
    proposal_final: int = 16
    num_probes: int = 128
    head_min_weight: float = 0.01
    guided: bool = True
    guide_range: float = 0.1
    occupancy_resolution: int = 96
    occupancy_margin: float = 0.1
    start_density: float = 20.0

    # the optimiser
    learning_rate: float = 5e-3
    grid_learning_rate: float = 2e-2
    final_rate: float = 0.03
    warmup_steps: int = 20
    weight_decay: float = 1e-6
    exposure: bool = True
    exposure_learning_rate: float = 3e-3
    optimize_cameras: bool = False
    camera_learning_rate: float = 5e-4
    loss_weights: dict = dataclasses.field(default_factory=dict)

    # the scene
    depth_of_points: bool = True
    near: float = 0.05
    far: float = 10.0
    holdout_every: int = 8
    max_side: int | None = None
    class_table: str | None = None
    labels: str = 'auto'
    language_scales: list = dataclasses.field(default_factory=lambda: [0.15, 0.3, 0.45, 0.6])
    instance_loss: str = 'contrastive'
    consistent_instances: bool = True

    # classes
    semantic_mode: str = 'probabilities'
    semantic_gradient: str = 'density'

    # the run
    amp: bool = False
    seed: int = 0
    pool_bytes: int = 2 << 30
    save_seconds: float = 60.0
    measure_every: int = 0
    measure_rays: int = 2048

    def __post_init__(self) -> None:
        choices = (
            ('method', METHODS),
            ('field', FIELDS),
            ('proposals', PROPOSALS),
            ('instance_loss', tuple(INSTANCE_LOSSES)),
        )
        for name, known in choices:
            if getattr(self, name) not in known:
                raise ValueError(f'{name}: expected one of {known}, got {getattr(self, name)!r}')

        for name in _ONE_OR_MORE:
            if getattr(self, name) < 1:
                raise ValueError(f'{name}: expected 1 or more, got {getattr(self, name)}')
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f'{name} must not be negative, got {getattr(self, name)}')
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f'{name} must be positive, got {getattr(self, name)}')

        unknown = sorted(set(self.loss_weights) - set(LOSS_WEIGHTS))
        if unknown:
            raise ValueError(f'loss_weights: unknown {unknown}, expected of {list(LOSS_WEIGHTS)}')
        self._check_idle_weights()
        if not self.proposal_samples or min(self.proposal_samples) < 1:
            raise ValueError(f'proposal_samples: expected 1 or more, got {self.proposal_samples}')
        if not 0 <= self.near < self.far:
            raise ValueError(f'expected 0 <= near < far, got {self.near} and {self.far}')

    def _check_idle_weights(self) -> None:
        """ValueError for a weight above zero of a term that these settings never have."""
        needs = {
            'features': (
                self.method in ('feature_field', 'lerf'),
                "method 'feature_field', or 'lerf' with features",
            ),
            'language': (self.method == 'lerf', "method 'lerf'"),
            **{
                term: (
                    self.method == 'panoptic' and self.instance_loss == loss,
                    f"method 'panoptic' and instance_loss {loss!r}",
                )
                for loss, term in INSTANCE_LOSSES.items()
            },
            'interlevel': (self.proposals != 'never', "proposals other than 'never'"),
            'surface': (self.surface_pixels > 0, 'surface_pixels'),
        }

        for name, weight in self.loss_weights.items():
            possible, wanted = needs.get(name, (True, ''))
            if weight and not possible:
                raise ValueError(f'loss_weights.{name} = {weight} would do nothing: needs {wanted}')

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every term; of those of instances only the chosen one counts."""
        others = set(INSTANCE_LOSSES.values()) - {INSTANCE_LOSSES[self.instance_loss]}
        return {**LOSS_WEIGHTS, **self.loss_weights, **dict.fromkeys(others, 0.0)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return asdict(self)


def parse_overrides(items: Sequence[str]) -> dict[str, Any]:
    """Make overrides of words such as ``steps=500`` and ``loss_weights.depth=0.2``.

    Raises:
        ValueError: a word that is not NAME=VALUE.
    """
    overrides: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition('=')
        if not equals:
            raise ValueError(f'expected NAME=VALUE, got {item!r}')
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f'{item!r}: its value is not readable as YAML') from error

        group, dot, key = name.partition('.')
        if dot:
            overrides.setdefault(group, {})[key] = value
        else:
            overrides[name] = value
    return overrides


def make_fit_settings(
    path: str | Path | None = None, overrides: Mapping[str, Any] | None = None
) -> FitSettings:
    """Make settings of a YAML file and overrides; mappings in both are merged.

    A file may name another one beside it as ``_base_``, whose values it goes on from.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, an unknown name, or a value of another type; names the file.
    """
    values = _read_with_base(Path(path)) if path is not None else {}
    overrides = overrides or {}
    source = str(path) if path is not None else 'settings'

    # another kind of field has other options
    if values.get('field') != overrides.get('field', values.get('field')):
        values.pop('field_options', None)
    values = _merged(values, overrides)

    unknown = sorted(set(values) - {f.name for f in fields(FitSettings)})
    if unknown:
        raise ValueError(f'{source}: unknown settings {", ".join(map(str, unknown))}')
    hints = typing.get_type_hints(FitSettings)
    try:
        return FitSettings(**{k: _as_type(k, v, hints[k]) for k, v in values.items()})
    except (ValueError, TypeError) as error:
        raise ValueError(f'{source}: {error}') from error


def _read_with_base(path: Path) -> dict[str, Any]:
    """A file's values over those of the file that it names as ``_base_``, which has no other."""
    values = read_yaml(path)
    base = values.pop('_base_', None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ValueError(f'{path}: _base_ should be the name of a file, got {base!r}')
    below = read_yaml(path.parent / base)
    if '_base_' in below:
        raise ValueError(f'{path}: {base} has a _base_ itself')
    return _merged(below, values)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Values that win over others; mappings in both are merged, at any depth."""
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def _as_type(name: str, value: Any, hint: Any) -> Any:
    """The value as its type hint wants it, or ValueError."""
    known = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if float in known and (type(value) is int or isinstance(value, str)):
        return float(value)  # YAML reads 1e-3 as text

    if type(value) not in known:
        wanted = ' or '.join(kind.__name__ for kind in known)
        raise ValueError(f'{name} should be {wanted}, got {value!r}')
    if isinstance(value, dict):
        return {key: _as_number(item) for key, item in value.items()}
    return value


def _as_number(value: Any) -> Any:
    """Text that YAML should have read as a number, such as 1e-3, as one."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
