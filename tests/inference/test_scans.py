"""Several scans of one call: which they are, where their results go, which are finished."""

import os
from pathlib import Path

import numpy as np
import pytest

from oneformer3d.data.layouts import find_layout
from oneformer3d.inference.inferencer import OneFormer3DInferencer
from oneformer3d.inference.scans import is_finished, list_jobs, list_scans, result_key
from tests.helpers.color_segmentor import two_block_scene, write_checkpoint, write_config
from tests.helpers.foreign_layouts import write_slambook
from tests.helpers.rgbd_scenes import render_views


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two clouds, and what is none."""
    root = tmp_path / 'scans'
    root.mkdir()
    for name, spacing in (('b.bin', 0.3), ('a.bin', 0.25)):
        two_block_scene(spacing).tofile(root / name)
    (root / 'notes.md').write_text('mine')
    (root / '.hidden').mkdir()
    (root / 'old').mkdir()
    (root / 'old' / 'summary.json').write_text('{}')
    return root


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_config(tmp_path), write_checkpoint(tmp_path)


def test_a_root_means_the_scans_in_it(root: Path) -> None:
    assert list_scans(root) == [root / 'a.bin', root / 'b.bin']
    assert list_scans(root / 'b.bin') == [root / 'b.bin']
    (root / 'results').mkdir()
    assert list_scans(root, root / 'results') == [root / 'a.bin', root / 'b.bin']
    with pytest.raises(FileNotFoundError, match=r'old.*no scans'):
        list_scans(root / 'old')
    with pytest.raises(FileNotFoundError, match='no such file'):
        list_scans(root / 'c.bin')


def test_what_must_be_stated_to_read_a_scan_is_not_needed_to_find_it(tmp_path: Path) -> None:
    scan = write_slambook(tmp_path / 'scan', render_views(3))
    with pytest.raises(ValueError, match='no intrinsics lie there'):
        find_layout(scan)
    assert list_scans(scan) == [scan]
    # a download with one recording in it is that recording
    assert list_scans(tmp_path) == [tmp_path]


def test_where_results_go(root: Path, tmp_path: Path) -> None:
    [alone] = list_jobs([root / 'a.bin'], tmp_path / 'out')
    assert alone.out == tmp_path / 'out'
    assert [job.out for job in list_jobs([root / 'a.bin'])] == [Path('work_dirs/infer/a')]
    assert [job.out for job in list_jobs([root], 'out')] == [Path('out/a'), Path('out/b')]

    # the parents tell scans of one name apart, and nothing tells a scan from itself
    (tmp_path / 'more').mkdir()
    (tmp_path / 'more' / 'a.bin').write_bytes((root / 'a.bin').read_bytes())
    jobs = list_jobs([root, tmp_path / 'more' / 'a.bin'], 'out')
    assert [job.out.name for job in jobs] == ['scans_a', 'b', 'more_a']
    with pytest.raises(ValueError, match='scans_a: 2 scans'):
        list_jobs([root / 'a.bin', root / 'a.bin'])


def test_the_key_changes_with_scan_weights_and_settings(root: Path, files) -> None:
    scan, weights = root / 'a.bin', files[1]
    keys = {result_key(scan, weights, {'score_thr': score}) for score in (0.3, 0.3, 0.4)}
    assert len(keys) == 2
    for path in (scan, weights):
        before = path.stat().st_mtime_ns
        os.utime(path, ns=(before, before + 1_000_000))
        keys.add(result_key(scan, weights, {'score_thr': 0.3}))
    assert len(keys) == 4


def test_several_scans_and_arrays_in_one_call(root: Path, files, tmp_path: Path) -> None:
    inferencer = OneFormer3DInferencer(*files, 'cpu', voxel_size=0)
    scene = two_block_scene(0.25)
    sources = [root / 'a.bin', scene, {'points': scene}]
    results = inferencer(sources, out_dir=tmp_path / 'out')

    for result in results:
        np.testing.assert_array_equal(result.semantic, np.rint(scene[:, 3] / 50))
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['a', 'scan_0001', 'scan_0002']
    assert is_finished(tmp_path / 'out' / 'a', inferencer.key(root / 'a.bin', up=None))


def test_a_finished_scan_is_read_back(root: Path, files, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    summary = out / 'summary.json'
    OneFormer3DInferencer(*files, 'cpu')(root / 'a.bin', out_dir=out)
    first = summary.stat().st_mtime_ns
    again = OneFormer3DInferencer(*files, 'cpu')(root / 'a.bin', out_dir=out)
    assert summary.stat().st_mtime_ns == first
    assert len(again.instances) == 6

    # other settings, or a file that is gone, make it anew
    OneFormer3DInferencer(*files, 'cpu', score_thr=0.72)(root / 'a.bin', out_dir=out)
    second = summary.stat().st_mtime_ns
    assert second > first
    (out / 'top.png').unlink()
    result = OneFormer3DInferencer(*files, 'cpu', score_thr=0.72)(root / 'a.bin', out_dir=out)
    assert (out / 'top.png').is_file()
    assert summary.stat().st_mtime_ns > second
    assert len(result.instances) == 4


def test_a_damaged_summary_is_no_result(tmp_path: Path) -> None:
    for content in ('', '[]', '{"key": 1}', 'x'):
        (tmp_path / 'summary.json').write_text(content)
        assert not is_finished(tmp_path, 'key')
