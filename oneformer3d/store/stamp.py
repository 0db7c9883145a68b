"""The stamp of a store: which encoder made its features, and how.

Enters: the encoder's settings, or what a file says they were. Leaves: a checked ``StoreStamp``, and
one clear error where two of them differ.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from oneformer3d.lifting.shapes import expect_shape

from .record import DTYPES, SCHEMA_VERSION, SCHEMA_VERSIONS

FEATURE_NAME = 'feat'  # the dense map (C, h, w); its width, type and grid are in the stamp


class StampMismatchError(ValueError):
    """Features of one encoder were met where those of another were expected."""


@dataclass(frozen=True, kw_only=True)
class StoreStamp:
    """What made the features of a store; two stores mix only if all of it is equal.

    Attributes:
        encoder: model name, e.g. ``ViT-B-16``.
        weights_digest: digest of the weights, so that a file's name does not matter.
        layer: layer or layers the map was taken from.
        mode: ``tokens`` or ``clip`` (projected to the text space).
        attn_mode: attention of the last block, e.g. ``vanilla``, ``sclip``.
        input_size: (H, W) of the image the encoder saw, None where it varies.
        dtype: numpy name of the map's type, e.g. ``float16``.
        preprocessing: resize, crop, mean and std in words.
        channels: C of the stored map.
        grid: (h, w) of the stored map, None where it varies; then each array has its own.
        postprocessing: what happened to the map afterwards, e.g. ``pixel_shuffle2``.
        schema_version: of the records. It says nothing about the features, so stores of all
            versions that can be read go together.

    Example:
        >>> from oneformer3d.store.examples import STAMP
        >>> STAMP.mode, STAMP.channels, STAMP.grid
        ('tokens', 4, (3, 5))
    """

    encoder: str
    weights_digest: str
    layer: str
    mode: str
    attn_mode: str
    input_size: tuple[int, int] | None
    dtype: str
    preprocessing: str
    channels: int
    grid: tuple[int, int] | None
    postprocessing: str = 'none'
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ('input_size', 'grid'):
                if value is not None and not _is_size(value):
                    raise ValueError(
                        f'stamp: {field.name} should be (height, width), got {value!r}'
                    )
            elif field.type is str and not isinstance(value, str):
                raise ValueError(f'stamp: {field.name} should be text, got {value!r}')
            elif field.type is int and (type(value) is not int or value <= 0):
                raise ValueError(f'stamp: {field.name} should be a count, got {value!r}')

        if np.dtype(self.dtype).name not in DTYPES:
            raise ValueError(f'stamp: dtype {self.dtype!r} cannot be stored')

    @property
    def shuffle_factor(self) -> int:
        """Factor of the pixel shuffle that the stored map went through; 1 without one."""
        factor = self.postprocessing.removeprefix('pixel_shuffle')
        return int(factor) if factor != self.postprocessing and factor.isdecimal() else 1

    @property
    def token_channels(self) -> int:
        """Channels of the frozen tokens, before the shuffle."""
        return self.channels * self.shuffle_factor**2

    @property
    def token_grid(self) -> tuple[int, int] | None:
        """(h, w) of the frozen tokens, None where it varies."""
        if self.grid is None:
            return None
        return self.grid[0] // self.shuffle_factor, self.grid[1] // self.shuffle_factor

    def to_dict(self) -> dict[str, object]:
        """Plain dictionary for JSON."""
        return asdict(self)

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal stamps give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True).encode()


def stamp_from_dict(values: Any, source: str) -> StoreStamp:
    """Read a stamp that came from a file.

    Args:
        values: what the file says.
        source: the name that messages begin with.

    Raises:
        ValueError: missing, unknown or wrong fields, or a schema that cannot be read.

    Example:
        >>> stamp_from_dict({'schema_version': 9}, 'manifest.json')
        Traceback (most recent call last):
        ValueError: manifest.json: schema version 9, this program reads 1 and 2
    """
    if not isinstance(values, Mapping):
        raise ValueError(f'{source}: the stamp should be an object, got {type(values).__name__}')
    if values.get('schema_version') not in SCHEMA_VERSIONS:
        raise ValueError(
            f'{source}: schema version {values.get("schema_version")!r}, '
            f'this program reads {" and ".join(map(str, SCHEMA_VERSIONS))}'
        )

    known = {field.name for field in fields(StoreStamp)}
    if set(values) != known:
        odd = sorted(set(values) ^ known)
        raise ValueError(f'{source}: stamp fields missing or unknown: {", ".join(odd)}')

    # JSON has lists where the stamp has pairs
    sizes = {name: _as_tuple(values[name]) for name in ('input_size', 'grid')}
    try:
        return StoreStamp(**{**values, **sizes})
    except (TypeError, ValueError) as error:
        raise ValueError(f'{source}: {error}') from error


def check_stamp(
    stored: StoreStamp, expected: StoreStamp | Mapping[str, Any] | None, source: str
) -> None:
    """Compare a store's stamp with what the caller needs.

    Args:
        stored: the stamp found.
        expected: a whole stamp, a mapping with just the fields that matter, or None.
        source: the name that the message begins with.

    Raises:
        StampMismatchError: naming every differing field with both values.
        ValueError: ``expected`` names a field that stamps do not have.

    Example:
        >>> from oneformer3d.store.examples import STAMP
        >>> check_stamp(STAMP, {'mode': 'tokens'}, 'here')
        >>> check_stamp(STAMP, {'mode': 'clip'}, 'here')  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        oneformer3d...StampMismatchError: here: made by ...: mode is 'tokens', expected 'clip'
    """
    if expected is None:
        return
    needed = expected.to_dict() if isinstance(expected, StoreStamp) else dict(expected)
    found = stored.to_dict()
    unknown = sorted(set(needed) - set(found))
    if unknown:
        raise ValueError(f'a stamp has no field {", ".join(unknown)}')

    # records of all readable versions hold the same arrays
    if {found['schema_version'], needed.get('schema_version')} <= set(SCHEMA_VERSIONS):
        del needed['schema_version']
    differing = [
        f'{name} is {found[name]!r}, expected {value!r}'
        for name, value in needed.items()
        if found[name] != _as_tuple(value)
    ]
    if differing:
        raise StampMismatchError(f'{source}: made by another encoder: {"; ".join(differing)}')


def check_feature(arrays: Mapping[str, np.ndarray], stamp: StoreStamp, source: str) -> None:
    """Check that the dense map, if there is one, has the stamp's width, grid and type.

    Args:
        arrays: of one frame.
        stamp: of the store that they go into.
        source: the name that messages begin with.

    Raises:
        ValueError: another shape or type.

    Example:
        >>> from oneformer3d.store.examples import STAMP
        >>> check_feature({'feat': np.zeros((9, 3, 5), np.float16)}, STAMP, 'room/00000')
        Traceback (most recent call last):
        ValueError: room/00000: feat: expected (C, h, w) with C=4, h=3, w=5, got (9, 3, 5)
    """
    if FEATURE_NAME not in arrays:
        return
    feature = np.asarray(arrays[FEATURE_NAME])
    sizes = {} if stamp.grid is None else dict(zip('hw', stamp.grid))
    expect_shape(f'{source}: {FEATURE_NAME}', feature, 'C h w', C=stamp.channels, **sizes)
    if feature.dtype != np.dtype(stamp.dtype):
        raise ValueError(f'{source}: {FEATURE_NAME}: expected {stamp.dtype}, got {feature.dtype}')


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(type(side) is int and side > 0 for side in value)
    )


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
