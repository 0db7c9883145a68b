"""Indoor scenes on disk → samples for training and testing.

Enters: a data root in the layout of docs/data.md and the infos of one split. Leaves, per index:
what the pipeline makes of ``dict(scene_id, class_table, lidar_path, super_pts_path,
pts_semantic_mask_path, pts_instance_mask_path, axis_align_matrix, scene, …)``, where ``scene`` is
the ``Scene`` record with its posed images.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from oneformer3d.files.names import resolve_in_root
from oneformer3d.registry import DATASETS, TRANSFORMS

from ..class_tables import get_class_table
from ..infos import read_infos
from ..scenes import listed, make_scene, read_scene_list
from .order import own_random_numbers, underway
from .views import LoadPosedViews

# Which folder each path of the infos belongs to.
_PREFIX_OF = {
    'lidar_path': 'pts',
    'super_pts_path': 'sp_pts_mask',
    'pts_semantic_mask_path': 'pts_semantic_mask',
    'pts_instance_mask_path': 'pts_instance_mask',
}
_DEFAULT_PREFIX = {
    'pts': 'points',
    'sp_pts_mask': 'super_points',
    'pts_semantic_mask': 'semantic_mask',
    'pts_instance_mask': 'instance_mask',
    'img': 'posed_images',
}


@DATASETS.register_module()
class IndoorSegDataset(BaseDataset):
    """Scenes with points, superpoints, masks and posed images.

    Args:
        data_root: folder that ``ann_file``, ``scene_list`` and the prefixes are relative to.
        ann_file: infos of the split (``.json``; ``.pkl`` with ``allow_pickle``).
        class_table: name of the class table, or the path of a JSON one.
        pipeline: transforms, as configurations or callables.
        data_prefix: sub-folders by kind (``pts``, ``sp_pts_mask``, ``pts_semantic_mask``,
            ``pts_instance_mask``, ``img``); what is not given has the layout's own name.
        scene_list: text file with one scene per line; only these are kept, in this order.
        allow_pickle: read pickled infos through the restricted reader.
        test_mode: samples carry ``eval_ann_info`` for the metric.
        metainfo: further meta information.
        indices: only the first so many scenes, or these.
        serialize_data: keep the list of scenes as one buffer that worker processes share.
        lazy_init: do not read the infos yet.

    Raises:
        FileNotFoundError: infos, scene list or scene files are missing; all missing files are
            named at once, before any training step.
        ValueError: faulty infos, or infos of another class table.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        class_table: str,
        pipeline: Sequence[dict | Callable] = (),
        data_prefix: Mapping[str, str] | None = None,
        scene_list: str | None = None,
        allow_pickle: bool = False,
        test_mode: bool = False,
        metainfo: Mapping[str, Any] | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        lazy_init: bool = False,
    ) -> None:
        unknown = set(data_prefix or {}) - set(_DEFAULT_PREFIX)
        if unknown:
            raise ValueError(
                f'data_prefix: unknown {sorted(unknown)}, expected some of {list(_DEFAULT_PREFIX)}'
            )
        table = get_class_table(class_table)
        self.class_table = class_table
        self.scene_list = scene_list
        self.allow_pickle = allow_pickle
        super().__init__(
            ann_file=ann_file,
            metainfo={
                'classes': table.classes,
                'palette': table.palette.tolist(),
                'ignore_index': table.ignore_index,
                'label2cat': dict(enumerate(table.classes)),
                **(metainfo or {}),
            },
            data_root=data_root,
            data_prefix={**_DEFAULT_PREFIX, **(data_prefix or {})},
            indices=indices,
            serialize_data=serialize_data,
            # Built here, so that names resolve without any default scope being set.
            pipeline=[TRANSFORMS.build(t) if isinstance(t, dict) else t for t in pipeline],
            test_mode=test_mode,
            lazy_init=lazy_init,
            max_refetch=0,
        )
        # Not above: mmengine takes text among the meta information for names of files to read.
        self._metainfo['class_table'] = class_table

    def full_init(self) -> None:
        """Read the infos, and count the frames that feature stores of the pipeline lack."""
        super().full_init()
        for step in self.pipeline.transforms:
            if isinstance(step, LoadPosedViews) and step.clip_store is not None:
                step.check_stored(self.get_data_info(i)['scene'] for i in range(len(self)))

    def prepare_data(self, idx: int) -> Any:
        """One sample; an index with a seed draws the random numbers of that seed."""
        info = self.get_data_info(idx)
        with underway(info['scene_id']), own_random_numbers(idx):
            return self.pipeline(info)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the infos, join the paths and make sure that every file is there."""
        infos = read_infos(str(self.ann_file), allow_pickle=self.allow_pickle)
        self._check_class_table(infos['metainfo'])
        scenes = [self.parse_data_info(scene) for scene in infos['data_list']]
        if self.scene_list is not None:
            scenes = self._only_listed(scenes, self.scene_list)
        if not scenes:
            raise ValueError(f'{self.ann_file}: holds no scenes')

        missing = [
            scene[key]
            for scene in scenes
            for key in _PREFIX_OF
            if key in scene and not Path(scene[key]).is_file()
        ]
        if missing:
            raise FileNotFoundError(
                f'{self.ann_file}: {len(missing)} of its files are missing: {listed(missing)}'
            )
        return scenes

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> dict[str, Any]:
        """Infos of one scene → what the pipeline starts from; paths of scene files absolute."""
        info: dict[str, Any] = {
            'scene_id': raw_data_info['scene_id'],
            'class_table': self.class_table,
            'test_mode': self.test_mode,
        }
        if raw_data_info.get('axis_align_matrix') is not None:
            info['axis_align_matrix'] = raw_data_info['axis_align_matrix']
        paths = {**raw_data_info, 'lidar_path': raw_data_info['lidar_points']['lidar_path']}
        try:
            for key, prefix in _PREFIX_OF.items():
                if paths.get(key) is not None:
                    info[key] = str(resolve_in_root(self.data_prefix[prefix], paths[key]))
        except ValueError as error:
            raise ValueError(f'{self.ann_file}: {info["scene_id"]}: {error}') from error

        # The record pickles as small as the infos do: frames are made when a transform asks.
        try:
            info['scene'] = make_scene(raw_data_info, info['lidar_path'], self.data_prefix['img'])
        except ValueError as error:
            raise ValueError(f'{self.ann_file}: {error}') from error
        return info

    def _check_class_table(self, metainfo: Mapping[str, Any]) -> None:
        """Only our own infos name a class table as their dataset."""
        written_for = metainfo.get('dataset')
        if 'schema_version' not in metainfo or written_for is None:
            return
        expected = get_class_table(self.class_table).name
        if written_for != expected:
            raise ValueError(
                f'{self.ann_file}: written for class table {written_for!r}, expected {expected!r}'
            )

    def _only_listed(self, scenes: list[dict[str, Any]], file: str) -> list[dict[str, Any]]:
        path = Path(self.data_root or '') / file
        names = read_scene_list(path)
        by_name = {scene['scene_id']: scene for scene in scenes}
        absent = [name for name in names if name not in by_name]
        if absent:
            raise ValueError(f'{path}: not in {self.ann_file}: {listed(absent)}')
        return [by_name[name] for name in names]
