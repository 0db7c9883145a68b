"""How good naming by text is: given masks, predicted masks, the trained head, absent words.

    python tools/evaluate_words.py DATA_ROOT --clip-weights CLIP
    python tools/evaluate_words.py DATA_ROOT --config CONFIG --checkpoint A B C --clip-weights CLIP
        --novel bed sofa

Looks at the validation scenes of a data root. With several checkpoints (seeds of a training) a row
holds their mean and half of their range. The names of --novel are reported apart: those that the
checkpoints were trained without. Prints a table and writes it with all numbers to --out, where
what each checkpoint gave is kept: an interrupted run goes on.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from oneformer3d.engine.cli import run_tool
from oneformer3d.engine.progress import show_progress
from oneformer3d.files.shipped import find_config
from oneformer3d.open_vocabulary.phrases import NEGATIVES

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from oneformer3d.data.class_tables import ClassTable
    from oneformer3d.inference.opened_scene import OpenedScene
    from oneformer3d.inference.scan_images import ScanImageReader, ScanImages
    from oneformer3d.metrics.instance import InstanceMatches

ABSENT = ('an elephant', 'a bicycle', 'a swimming pool', 'a traffic light', 'a horse')


class Words(NamedTuple):
    """Names of I things, and vectors (·, D): of these, stuff, no particular and absent things."""

    names: tuple[str, ...]
    things: 'np.ndarray'
    stuff: 'np.ndarray'
    negatives: 'np.ndarray'
    absent: 'np.ndarray'


class Room(NamedTuple):
    """A validation scene: its points, its true instances with classes 0…I−1, and its images."""

    scene: 'OpenedScene'
    instance: 'np.ndarray'
    classes: 'np.ndarray'
    images: 'ScanImages'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data_root', help='with infos, labels and posed images')
    parser.add_argument('--class-table', default='synthetic', help='of the labels (%(default)s)')
    parser.add_argument('--clip-weights', required=True, help='CLIP that reads text and images')
    parser.add_argument('--config', help='of a model that makes masks')
    parser.add_argument('--checkpoint', nargs='+', default=[], help='its weights, one per seed')
    parser.add_argument('--novel', nargs='+', default=[], help='names it was trained without')
    parser.add_argument('--negatives', nargs='+', default=list(NEGATIVES))
    parser.add_argument('--absent', nargs='+', default=list(ABSENT), help='words for nothing there')
    parser.add_argument('--threshold', type=float, default=0.5, help='of a score to be found')
    parser.add_argument('--max-scenes', type=int, help='so many scenes (default: all)')
    parser.add_argument('--out', default='outputs/words', help='folder (default: %(default)s)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    check(args)
    import numpy as np

    from oneformer3d.data.class_tables import get_class_table
    from oneformer3d.inference.scene_index import text_image_reader

    table = get_class_table(args.class_table)
    things = [table.classes[k] for k in table.instance_classes]
    unknown = sorted(set(args.novel) - set(things))
    if unknown:
        raise ValueError(f'--novel: {", ".join(unknown)} are no things of {args.class_table}')

    reader = text_image_reader(args.clip_weights)
    stuff = [table.classes[k] for k in table.stuff]
    texts = (things, stuff, args.negatives, args.absent)
    words = Words(tuple(things), *(reader.clip.clip.encode_text(one).numpy() for one in texts))
    rooms = read_rooms(args, table, reader)

    rows = given_masks(rooms, words, reader, args.threshold)
    novel = np.isin(things, args.novel)
    seeds = [
        kept_or_made(args, path, lambda path=path: predicted_masks(
            rooms, words, reader, args, path, novel
        ))
        for path in args.checkpoint
    ]  # fmt: skip
    for name in seeds[0] if seeds else ():
        rows[name] = [seed[name] for seed in seeds]
    write(Path(args.out), rows, args)


def check(args: argparse.Namespace) -> None:
    """What can be wrong is found before anything slow is loaded."""
    if not Path(args.data_root).is_dir():
        raise FileNotFoundError(f'{args.data_root}: no such folder')
    if (args.config is None) != (not args.checkpoint):
        raise ValueError('--config and --checkpoint belong together')
    if args.config is not None:
        find_config(args.config)
    for path in args.checkpoint:
        if not Path(path).is_file():
            raise FileNotFoundError(f'{path}: no such checkpoint file')


def read_rooms(
    args: argparse.Namespace, table: 'ClassTable', reader: 'ScanImageReader'
) -> list[Room]:
    """The validation scenes with their images."""
    import numpy as np

    from oneformer3d.data.posed_rgbd import load_posed_rgbd
    from oneformer3d.data.scene_files import read_labels, read_points
    from oneformer3d.data.scenes import read_scenes
    from oneformer3d.inference.opened_scene import OpenedScene

    root, rooms = Path(args.data_root), []
    scenes = list(read_scenes(root, 'val').values())[: args.max_scenes]
    for number, scene in enumerate(scenes):
        show_progress('read', number, len(scenes))
        points = read_points(scene.points_path)
        semantic, instance = (
            read_labels(root / kind / scene.points_path.name, len(points))
            for kind in ('semantic_mask', 'instance_mask')
        )
        ids, classes = true_things(table, semantic, instance)
        recording = load_posed_rgbd(root / 'posed_images' / scene.name)
        opened = OpenedScene(
            scene.name, points, np.eye(3, dtype=np.float32), np.zeros(3), recording
        )
        rooms.append(Room(opened, ids, classes, reader(recording)))
    show_progress('read', len(scenes), len(scenes))
    return rooms


def true_things(
    table: 'ClassTable', semantic: 'np.ndarray', instance: 'np.ndarray'
) -> 'tuple[np.ndarray, np.ndarray]':
    """Dense ids (N,) of things, −1 for all else, and their classes 0…I−1."""
    import numpy as np

    labels = table.contiguous_from_raw(semantic)
    position = np.full(table.num_classes + 1, -1)
    position[list(table.instance_classes)] = np.arange(len(table.instance_classes))
    is_thing = position[labels] >= 0

    ids = np.full(len(labels), -1)
    _, ids[is_thing] = np.unique(instance[is_thing], return_inverse=True)
    classes = np.zeros(ids.max() + 1, np.int64)
    classes[ids[is_thing]] = position[labels[is_thing]]
    return ids, classes


def given_masks(
    rooms: list[Room], words: Words, reader: 'ScanImageReader', threshold: float
) -> dict[str, list[float]]:
    """Naming of true masks: only names can be wrong."""
    import numpy as np

    from oneformer3d.inference.scene_index import index_masks
    from oneformer3d.open_vocabulary.evaluation import false_alarms, naming_scores
    from oneformer3d.open_vocabulary.members import members_of_masks

    named, similarity, found, there, absent = [], [], [], [], []
    for room in rooms:
        masks = room.instance == np.arange(len(room.classes))[:, None]  # (K, N)
        index = index_masks(room.scene, members_of_masks(masks), room.images, reader.clip.stamp)
        named.append(index.name(words.things, words.negatives)[0])
        similarity.append(index.directions @ words.things.T)
        there.append(np.isin(np.arange(len(words.things)), room.classes))
        found.append(index.query(words.things, words.negatives, threshold=threshold).found)
        absent.append(index.query(words.absent, words.negatives, threshold=threshold).found)

    true = np.concatenate([room.classes for room in rooms])
    scores = naming_scores(np.concatenate(named), true, np.concatenate(similarity))
    return {
        'given masks: named right': [scores.top1],
        'given masks: named right, mean over classes': [scores.balanced],
        'given masks: retrieval mAP': [scores.retrieval],
        'false alarms: things of other rooms': [
            false_alarms(np.concatenate(found), np.concatenate(there))
        ],
        'false alarms: words for what is in no room': [float(np.mean(absent))],
    }


def predicted_masks(
    rooms: list[Room],
    words: Words,
    reader: 'ScanImageReader',
    args: argparse.Namespace,
    checkpoint: str,
    novel: 'np.ndarray',
) -> dict[str, float]:
    """AP50 of a model's masks with names of its head, of text, and with the best names."""
    import numpy as np

    from oneformer3d.inference.scene_index import index_masks
    from oneformer3d.inference.segment_scene import segment_scene
    from oneformer3d.metrics.instance import instance_scores, match_instances
    from oneformer3d.open_vocabulary.members import members_of_masks

    position = {name: k for k, name in enumerate(words.names)}
    matches: dict[str, list[InstanceMatches]] = {}
    for number, room in enumerate(rooms):
        show_progress('segment', number, len(rooms))
        result = segment_scene(
            room.scene, args.config, checkpoint, {'weights': args.clip_weights}, score_thr=0.02
        )
        masks = np.array([one.mask for one in result.instances]).reshape(-1, len(room.instance))
        index = index_masks(room.scene, members_of_masks(masks), room.images, reader.clip.stamp)
        scores = np.array([one.score for one in result.instances])
        by_head = np.array([position.get(one.name, -1) for one in result.instances], int)

        # a mask that text calls a wall is no object, and one of a doubtful name ranks lower
        by_text, likely = index.name(words.things, words.stuff)
        fits = likely.max(1, initial=0)
        for name, labels, ranked_by in (
            ('head', by_head, scores),
            ('text', by_text, scores * fits),
            ('best names', best_names(masks, room), scores),
        ):
            named = labels >= 0
            matches.setdefault(name, []).append(
                match_instances(
                    masks[named], labels[named], ranked_by[named], room.instance, room.classes
                )
            )
    show_progress('segment', len(rooms), len(rooms))

    rows = {}
    for name, found in matches.items():
        ap50 = instance_scores(found, len(words.things)).ap50
        rows[f'predicted masks, {name}: AP50'] = float(np.nanmean(ap50))
        if novel.any():
            rows[f'predicted masks, {name}: AP50 base'] = float(np.nanmean(ap50[~novel]))
            rows[f'predicted masks, {name}: AP50 novel'] = float(np.nanmean(ap50[novel]))
    return rows


def kept_or_made(
    args: argparse.Namespace, checkpoint: str, make: 'Callable[[], dict[str, float]]'
) -> dict[str, float]:
    """The rows of a checkpoint, read back where the same question was answered before."""
    from oneformer3d.files.atomic import atomic_write_bytes

    asked = {name: value for name, value in vars(args).items() if name not in ('out', 'checkpoint')}
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    for path in (checkpoint, args.clip_weights):
        digest.update(Path(path).read_bytes() if Path(path).is_file() else path.encode())
    kept = Path(args.out) / f'seed_{digest.hexdigest()[:16]}.json'
    if kept.is_file():
        return {
            name: float('nan') if value is None else value
            for name, value in json.loads(kept.read_text(encoding='utf-8')).items()
        }

    rows = make()
    plain = {name: None if value != value else value for name, value in rows.items()}
    kept.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(kept, json.dumps(plain, indent=1, allow_nan=False).encode())
    return rows


def best_names(masks: 'np.ndarray', room: Room) -> 'np.ndarray':
    """The class of the true instance that each mask shares most points with, of its union."""
    import numpy as np

    names = np.zeros(len(masks), int)
    sizes = np.bincount(room.instance[room.instance >= 0], minlength=len(room.classes))
    for row, mask in enumerate(masks):
        within = room.instance[mask]
        shared = np.bincount(within[within >= 0], minlength=len(room.classes))
        names[row] = room.classes[(shared / (sizes + mask.sum() - shared)).argmax()]
    return names


def write(out: Path, rows: dict[str, list[float]], args: argparse.Namespace) -> None:
    """Print and keep the table."""
    import numpy as np

    from oneformer3d.files.atomic import atomic_write_bytes

    lines = ['| naming by text | % |', '|---|---|']
    for name, values in rows.items():
        spread = f' ± {50 * np.ptp(values):.1f}' if len(values) > 1 else ''
        mean = np.mean(values)
        shown = 'nothing to count' if np.isnan(mean) else f'{100 * mean:.1f}{spread}'
        lines.append(f'| {name} | {shown} |')
    print('\n'.join(lines))

    out.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(out / 'words.md', ('\n'.join(lines) + '\n').encode())
    plain = {
        name: [None if np.isnan(value) else value for value in values]
        for name, values in rows.items()
    }
    content = json.dumps({'rows': plain, 'arguments': vars(args)}, indent=1, allow_nan=False)
    atomic_write_bytes(out / 'words.json', content.encode())


if __name__ == '__main__':
    run_tool(main)
