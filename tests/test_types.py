"""What users hold says what it is: nothing public returns ``Any``, and the types are shipped.

``tools/run_tests.sh`` lets basedpyright check the package itself, beside the tests.
"""

import dataclasses
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
import pytest

import oneformer3d
from oneformer3d.data.scan import read_scan
from oneformer3d.metrics.frame_map import frame_map
from oneformer3d.metrics.instance import instance_scores, match_instances
from oneformer3d.metrics.labelled_scan import agnostic_scores
from oneformer3d.metrics.panoptic import match_segments, panoptic_scores
from oneformer3d.metrics.semantic import semantic_scores
from oneformer3d.metrics.streaming import CausalEvaluator
from oneformer3d.metrics.unified import UnifiedSegMetric
from oneformer3d.open_vocabulary.index import SceneIndex
from oneformer3d.streaming.segmentor import StreamingSegmentor
from oneformer3d.structures import Segmentation
from tests.conftest import REPOSITORY

PUBLIC = (
    *(getattr(oneformer3d, name) for name in oneformer3d.__all__ if name != '__version__'),
    Segmentation,
    SceneIndex,
    StreamingSegmentor,
    CausalEvaluator,
    UnifiedSegMetric,
    frame_map,
    agnostic_scores,
    read_scan,
    instance_scores,
    match_instances,
    match_segments,
    panoptic_scores,
    semantic_scores,
)
# rooms that show names; not fields, whose settings hold free options, nor the store, whose records
# are arrays as they were put in
ROOMS = (
    *('bi_fusion_encoder', 'bife_clip_loss', 'clip_utils', 'stm_decoder', 'tiny_sa'),
    *('lifting', 'metrics', 'streaming', 'structures'),
)
USE = """import oneformer3d
from oneformer3d.mvpnet.segment_scan import SegmentedScan

result = oneformer3d.Inferencer()('scan.ply')
reveal_type(result)
reveal_type(result.semantic)
reveal_type(result.instances[0].score)
def labels_of(scan: SegmentedScan):
    reveal_type(scan['labels'])
text: str = result.instances[0].score
"""
BARE = (dict, list, tuple, set, frozenset, np.ndarray, Callable)  # without what they hold


@pytest.mark.parametrize('public', PUBLIC, ids=lambda public: public.__qualname__)
def test_nothing_public_returns_any(public):
    faults = sorted(set(faults_of(public, set())))
    assert not faults, '\n'.join(faults)


@pytest.mark.parametrize('room', ROOMS)
def test_nor_does_what_a_room_shows(room):
    module = importlib.import_module(f'oneformer3d.{room}')
    public = [getattr(module, name) for name in module.__all__]
    faults = {fault for one in public if callable(one) for fault in faults_of(one, set())}
    assert public
    assert not faults, '\n'.join(sorted(faults))


def test_any_is_found_wherever_it_hides():
    @dataclasses.dataclass
    class Inner:
        value: list[dict[str, Any]]

    @dataclasses.dataclass
    class Record:
        inner: tuple[Inner, ...] | None

        def array(self) -> np.ndarray:
            return np.zeros(1)

    Inner.__module__ = Record.__module__ = 'oneformer3d.made_up'
    found = ' '.join(faults_of_type(Record, 'Record', set()))
    assert 'Inner.value: Any' in found
    assert 'array: ndarray of anything' in found
    assert not list(faults_of_type(np.ndarray[tuple[Any, ...], np.dtype[np.int64]], '', set()))


def faults_of(public: Any, seen: set[type]) -> Iterator[str]:
    """Where ``Any`` stands in what a class or a function gives."""
    if isinstance(public, type):
        yield from faults_of_type(public, public.__name__, seen)
    else:
        given = get_type_hints(public).get('return', Any)
        yield from faults_of_type(given, f'{public.__name__}()', seen)


def faults_of_type(hint: Any, where: str, seen: set[type]) -> Iterator[str]:
    """Faults of a type and of all that it holds; the shape of an array may be any."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        yield f'{where}: Any'
    elif hint in BARE:
        yield f'{where}: {hint.__name__} of anything'
    elif origin is np.ndarray:
        yield from faults_of_type(args[1], where, seen)
    elif origin is not None:
        for arg in args:
            yield from faults_of_type(arg, where, seen)
    elif isinstance(hint, type) and hint.__module__.startswith('oneformer3d') and hint not in seen:
        seen.add(hint)
        yield from _faults_of_class(hint, seen)


def _faults_of_class(cls: type, seen: set[type]) -> Iterator[str]:
    if dataclasses.is_dataclass(cls) or is_typeddict(cls) or issubclass(cls, tuple):
        for name, hint in get_type_hints(cls).items():
            if not name.startswith('_'):
                yield from faults_of_type(hint, f'{cls.__name__}.{name}', seen)
    for name, member in vars(cls).items():
        function = _function(member)
        if function is not None and (not name.startswith('_') or name == '__call__'):
            given = get_type_hints(function).get('return', Any)
            yield from faults_of_type(given, f'{cls.__name__}.{name}', seen)


def _function(member: Any) -> Callable | None:
    for attribute in ('fget', 'func', '__func__'):  # property, cached_property, classmethod
        member = getattr(member, attribute, member)
    return member if inspect.isfunction(member) else None


@pytest.mark.slow
def test_a_checker_sees_the_types_from_outside(tmp_path):
    pytest.importorskip('basedpyright')
    (tmp_path / 'use.py').write_text(USE)
    (tmp_path / 'pyrightconfig.json').write_text(json.dumps({'extraPaths': [str(REPOSITORY)]}))
    done = subprocess.run(
        [sys.executable, '-m', 'basedpyright', '--outputjson', '--pythonpath', sys.executable],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = json.loads(done.stdout)['generalDiagnostics']

    revealed = [one['message'] for one in said if one['severity'] == 'information']
    types = [re.sub(r'.* is "(.*)"', r'\1', message) for message in revealed]
    assert types[::2] == ['Segmentation', 'float']
    assert types[3] == 'Tensor'
    assert 'signedinteger[_64Bit]' in types[1]
    wrong = [one['range']['start']['line'] for one in said if one['severity'] == 'error']
    assert [USE.splitlines()[line] for line in wrong] == ['text: str = result.instances[0].score']
