"""Every writer, each operation of it in turn failing: old or new, never half, and it goes on.

The store's own operations fail in tests/store/test_operations.py.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from oneformer3d.data.convert.posed_rgbd_dataset import convert_posed_rgbd
from oneformer3d.data.convert.scannet import convert_scannet
from oneformer3d.data.infos import write_infos
from oneformer3d.engine.checkpoint_hook import AtomicLocalBackend
from oneformer3d.experiments.ablation_results import write_result
from oneformer3d.extraction.frames import list_frames
from oneformer3d.extraction.settings import ExtractionSettings
from oneformer3d.extraction.uv_index import build_uv_indices
from oneformer3d.fields.fitting.field_file import load_field
from oneformer3d.fields.fitting.loop import fit_field
from oneformer3d.files import atomic
from oneformer3d.files.checkpoints import load_checkpoint_file, write_checkpoint, write_weights
from oneformer3d.files.images import write_png
from oneformer3d.open_vocabulary.answers import write_answers
from oneformer3d.store import FeatureStoreWriter
from oneformer3d.store.export import export_npz
from oneformer3d.streaming.state import MergeState
from oneformer3d.viewer.page import write_page
from oneformer3d.viewer.scene import view_scene
from tests.helpers.failing_operations import failing
from tests.helpers.rgbd_scenes import render_views, write_seven_scenes
from tests.helpers.scannet_tree import write_tree
from tests.helpers.small_scenes import box_scene, quick_settings
from tests.helpers.store_samples import BIG_STAMP, frame_names, put_all
from tests.viewer.scenes import small_asked, small_segmentation

WEIGHTS = {'a.weight': torch.arange(6.0).view(2, 3)}
MANY = 2000  # operations; no writer has so many


@dataclass(frozen=True)
class Sources:
    """What writers read, made once."""

    folder: Path

    @property
    def recording(self) -> Path:
        return self.folder / 'room'

    @property
    def root(self) -> Path:
        return self.folder / 'root'


def convert(sources: Sources, out: Path) -> None:
    convert_posed_rgbd(sources.recording, out, voxel_size=0.2, progress=False)


def convert_tree(sources: Sources, out: Path) -> None:
    options = dict(splits=['val'], frame_step=1000, progress=False)
    convert_scannet(sources.folder / 'scannet', out, 'scannet', **options)


def index_pixels(sources: Sources, out: Path) -> None:
    build_uv_indices(list_frames(ExtractionSettings(data_root=str(sources.root))), out)


def fit(sources: Sources, out: Path) -> None:
    settings = quick_settings(steps=2, save_seconds=0, batch_rays=16, surface_pixels=16)
    fit_field(box_scene(2), settings, out)


def save_result(sources: Sources, out: Path) -> None:
    small_segmentation().save(out, extras=('instances',), size=(8, 8))


def save_page(sources: Sources, out: Path) -> None:
    result = small_segmentation()
    write_page(out / 'scene.html', view_scene('room', result.upright, result.rgb, result))


def save_answers(sources: Sources, out: Path) -> None:
    asked, xyz = small_asked(), small_segmentation().points[:, :3]
    asked.index.save(out / 'index.safetensors')
    write_answers(out, asked.index, asked.result, asked.texts, xyz)


def save_checkpoints(sources: Sources, out: Path) -> None:
    write_checkpoint(out / 'a.pth', {'state_dict': WEIGHTS})
    write_weights(out / 'a.safetensors', WEIGHTS, 'a test')
    buffer = io.BytesIO()
    torch.save({'state_dict': WEIGHTS}, buffer)
    AtomicLocalBackend().put(buffer.getvalue(), out / 'epoch_1.pth')


def save_small_files(sources: Sources, out: Path) -> None:
    write_infos(
        out / 'infos.json', {'data_list': [{'scene_id': 'a', 'lidar_points': {'lidar_path': 'a'}}]}
    )
    write_png(out / 'picture.png', np.full((4, 5, 3), 7, np.uint8))
    MergeState({'a': np.arange(5)}).save(out / 'state.npz')
    write_result(out / 'results.jsonl', {'cell': 'a', 'seed': 0, 'digest': 'd', 'metrics': {}})


def export(sources: Sources, out: Path) -> None:
    export_npz(sources.folder / 'store', out)


WRITERS: Mapping[str, Callable[[Sources, Path], None]] = {
    'conversion of a recording': convert,
    'conversion of ScanNet': convert_tree,
    'uv index': index_pixels,
    'field': fit,
    'result of infer': save_result,
    'page': save_page,
    'answers and their index': save_answers,
    'checkpoints': save_checkpoints,
    'infos, pictures, snapshots, tables': save_small_files,
    'exported store': export,
}


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    sources = Sources(tmp_path_factory.mktemp('sources'))
    write_seven_scenes(sources.recording, render_views(2))
    write_tree(sources.folder / 'scannet')
    convert(sources, sources.root)
    with FeatureStoreWriter(sources.folder / 'store', BIG_STAMP) as writer:
        put_all(writer, frame_names(1, 2), BIG_STAMP)
    return sources


def content_of(path: Path) -> object:
    """A file as its readers see it: times that are written into archives do not matter."""
    if path.suffix == '.npz':
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name].tobytes() for name in arrays.files}
    if path.name == 'field.pth':
        fitted, _ = load_field(path)
        return fitted.step, {k: v.tolist() for k, v in fitted.field.state_dict().items()}
    if path.suffix == '.pth':
        return {k: v.tolist() for k, v in load_checkpoint_file(path).items()}
    if path.suffix == '.safetensors':  # whose header has no order
        return {k: v.numpy().tobytes() for k, v in load_file(path).items()}
    return path.read_bytes()


def contents(folder: Path) -> dict[str, object]:
    """All files of a folder; locks are no results."""
    files = [path for path in folder.rglob('*') if path.is_file() and path.suffix != '.lock']
    return {str(p.relative_to(folder)): content_of(p) for p in files if not is_temporary(p)}


def is_temporary(path: Path) -> bool:
    """Whether it is, or lies in, what the next process removes."""
    return any(atomic._TEMPORARY.fullmatch(part) for part in path.parts)


@pytest.mark.parametrize('after', [False, True], ids=['undone', 'done'])
@pytest.mark.parametrize('name', WRITERS)
def test_each_operation_in_turn_fails(tmp_path, sources, name, after):
    write, failed = WRITERS[name], set()
    write(sources, tmp_path / 'clean' / 'scene')
    clean = contents(tmp_path / 'clean' / 'scene')

    for nth in range(1, MANY):
        out, said = tmp_path / str(nth) / 'scene', None
        atomic._swept.clear()  # as in a process of its own
        with failing(nth, after, out) as faults:
            try:
                write(sources, out)
            except (OSError, ValueError) as error:
                said = str(error)
        if not faults.what:
            break
        failed.add(faults.what)

        # told, or without consequence: a folder that is there, an archive opened in another way
        found = contents(out)
        assert said or found == clean, f'{faults.what} number {nth} failed and nothing was said'
        assert '\n' not in (said or '')

        # whole files of the clean run, fields of an earlier step, and nothing else but a temporary
        # folder that could not be looked into to remove it
        for file, content in found.items():
            assert content == clean.get(file) or file == 'field.pth', (faults.what, nth, file)
        left = [path for path in out.rglob('*') if is_temporary(path)]
        assert not left or faults.what == 'os.open', (faults.what, nth, left)
        write(sources, out)
        assert contents(out) == clean, f'after {faults.what} number {nth}'
    assert nth < MANY - 1
    assert failed >= {'open', 'write', 'os.fsync', 'os.replace'}
