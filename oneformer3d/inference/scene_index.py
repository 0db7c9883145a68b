"""A scene and its images → what any text can be compared with.

    masks: those of the segmentation, and the superpoints that none covers
    images → dense text-space maps → visible pairs → one vector per mask

Enters: an ``OpenedScene`` and a reader of images in the text space. Leaves: a ``SceneIndex``, made
once and kept in a file. N points, K masks.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer3d.data.layouts import PosedFolder
from oneformer3d.data.superpoints import superpoints_from_points
from oneformer3d.open_vocabulary.index import MAX_MASKS, SceneIndex, load_index
from oneformer3d.open_vocabulary.members import (
    MaskMembers,
    add_uncovered,
    best_mask_of_points,
    members_of_lists,
)
from oneformer3d.open_vocabulary.vectors import best_views, mask_vectors
from oneformer3d.store.stamp import StampMismatchError, StoreStamp
from oneformer3d.structures.boxes import fit_upright_box

from .opened_scene import OpenedScene
from .scan_images import ScanImageReader, ScanImages

# Square metres. Smaller pieces are shown by few pixels, whose features are more noise than object:
# they would lead every ranking. A fifth as many pieces are left, as pure to 2 %.
MIN_AREA = 0.05
INDEX_NAME = 'text_index.safetensors'
Progress = Callable[[str, int, int], None]


def text_image_reader(
    weights: str | Path,
    model: str | None = None,
    max_views: int = 64,
    device: str = 'cpu',
) -> ScanImageReader:
    """A reader whose maps lie in the text space of a CLIP.

    The last attention is MaskCLIP's (ECCV 2022), which keeps what each place shows; with the
    tower's own attention half of the objects get another's name.

    Args:
        weights: file, or tag of open_clip.
        model: of open_clip, where the weights do not tell.
        max_views: images of a scan.
        device: where CLIP runs.

    Raises:
        FileNotFoundError: no such weights.
    """
    settings = {'weights': str(weights), 'mode': 'clip', 'attn_mode': 'maskclip'}
    if model is not None:
        settings['model'] = model
    return ScanImageReader(settings, None, max_views=max_views, device=device)


def load_or_index(
    path: Path, scene: OpenedScene, reader: ScanImageReader, progress: Progress
) -> SceneIndex:
    """The index of a file if it is of this scene, these images and this CLIP, else a new one.

    Raises:
        ValueError: as ``index_scene``.
    """
    if path.is_file():
        try:
            index = load_index(path, reader.clip.stamp)
        except (StampMismatchError, ValueError):
            index = None  # of another CLIP, or damaged: it can be made again
        if index is not None and index.made_of == digest_of(scene, reader.max_views):
            return index

    path.parent.mkdir(parents=True, exist_ok=True)
    index_scene(scene, reader, progress).save(path)
    return load_index(path)  # as the next call will find it: the file rounds


def index_scene(scene: OpenedScene, reader: ScanImageReader, progress: Progress) -> SceneIndex:
    """Look at a scene's images and keep one vector per mask.

    Args:
        scene: with images.
        reader: see ``text_image_reader``.
        progress: called with a step, how much of it is done, and of how much.

    Raises:
        ValueError: no images, or too many masks for an index.
    """
    recording = recording_of(scene)
    progress('masks', 0, 1)
    members = masks_of(scene)
    if members.num_masks > MAX_MASKS:
        raise ValueError(f'{scene.source}: {members.num_masks} masks, an index holds {MAX_MASKS}')
    progress('masks', 1, 1)

    progress('images', 0, 1)
    images = reader(recording)
    progress('images', 1, 1)

    progress('vectors', 0, 1)
    digest = digest_of(scene, reader.max_views)
    index = index_masks(scene, members, images, reader.clip.stamp, digest)
    progress('vectors', 1, 1)
    return index


def index_masks(
    scene: OpenedScene,
    members: MaskMembers,
    images: ScanImages,
    stamp: StoreStamp,
    made_of: str = '',
) -> SceneIndex:
    """One vector per mask, whoever made the masks.

    Args:
        scene: of N points.
        members: K masks of these; of a segmentation its instances come first.
        images: of the scene, with maps in the text space.
        stamp: of the encoder of these maps.
        made_of: see ``SceneIndex``.
    """
    # the cameras are in the coordinates of the recording, the points may have been moved
    world = (scene.points[:, :3] + scene.origin).astype(np.float32)  # (N, 3)
    pairs = images.views(world).pairs
    vectors = mask_vectors(images.feat, pairs, images.camera.image_size, members)  # (K, D)
    names, scores = names_of(scene, members)
    return SceneIndex(
        vectors,
        best_mask_of_points(members, scores),
        names,
        scores,
        boxes_of(scene.upright, members),
        images.frames,
        best_views(pairs, members),
        stamp,
        made_of,
    )


def recording_of(scene: OpenedScene) -> PosedFolder:
    """The posed images of a scene.

    Raises:
        ValueError: it has none.
    """
    if scene.recording is None:
        where = '' if scene.segmentation is None else scene.segmentation.info.source
        gone = f' (its images are no longer in {where})' if where else ''
        raise ValueError(
            f'{scene.source}: text is compared with images, and there are none{gone}; name the '
            'folder of the posed images of this scan with --images'
        )
    return scene.recording


def masks_of(scene: OpenedScene) -> MaskMembers:
    """The instances of a scene, and the superpoints that none of them covers."""
    instances = () if scene.segmentation is None else scene.segmentation.instances
    members = members_of_lists([one.members for one in instances], len(scene.points))
    superpoints = superpoints_from_points(
        scene.points[:, :3], scene.points[:, 3:], min_area=MIN_AREA
    )
    return add_uncovered(members, superpoints)


def pieces_of(scene: OpenedScene) -> NDArray[np.int64]:
    """The best mask (N,) of each point, for who looks at the masks alone."""
    members = masks_of(scene)
    return best_mask_of_points(members, names_of(scene, members)[1])


def names_of(
    scene: OpenedScene, members: MaskMembers
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Names (K) and scores (K,) of the segmentation; superpoints have the class of most points."""
    result = scene.segmentation
    scores = np.zeros(members.num_masks, np.float32)
    if result is None:
        return ('',) * members.num_masks, scores

    # class of most points of each mask
    counts = np.zeros((members.num_masks, len(result.class_names) + 1), np.int64)
    np.add.at(counts, (members.mask, result.semantic[members.point]), 1)
    names = [(*result.class_names, '')[k] for k in counts.argmax(1)]
    for row, instance in enumerate(result.instances):
        names[row], scores[row] = instance.name, instance.score
    return tuple(names), scores


def boxes_of(upright: NDArray[np.float32], members: MaskMembers) -> NDArray[np.float32]:
    """Upright boxes (K, 7): centre, size, yaw; of points (N, 3) with z up."""
    boxes = np.zeros((members.num_masks, 7), np.float32)
    for row in range(members.num_masks):
        box = fit_upright_box(upright[members.points_of(row)])
        boxes[row] = (*box.centre, *box.size, box.yaw)
    return boxes


def digest_of(scene: OpenedScene, max_views: int) -> str:
    """What an index was made of: points, masks and images, not the words it will be asked."""
    digest = hashlib.sha256(np.ascontiguousarray(scene.points).tobytes())
    if scene.segmentation is not None:
        for instance in scene.segmentation.instances:
            digest.update(instance.members.tobytes())
        digest.update(scene.segmentation.semantic.tobytes())

    recording = recording_of(scene)
    frames = '\n'.join(frame.name for frame in recording.frames)
    digest.update(f'{recording.folder.resolve()}\n{frames}\n{max_views}'.encode())
    return digest.hexdigest()
