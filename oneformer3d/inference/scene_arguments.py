"""What the tools that look at a scene and ask it share: their arguments, and the scene they mean.

Enters: a parser, or its parsed arguments. Leaves: arguments; checks that are done before anything
slow is loaded; an ``OpenedScene``. Nothing heavy is imported before a scene is opened.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from oneformer3d.engine.cli import (
    add_recording_arguments,
    add_scan_arguments,
    model_files,
    recording_options,
    tell,
)
from oneformer3d.engine.progress import show_progress
from oneformer3d.open_vocabulary.phrases import NEGATIVES

if TYPE_CHECKING:
    from oneformer3d.open_vocabulary.index import SceneIndex

    from .opened_scene import OpenedScene
    from .scan_images import ScanImageReader

FIELD_FILE = 'field.pth'
Progress = Callable[[str, int, int], None]
UPS = ('x', 'y', 'z', '-x', '-y', '-z')


def add_text_arguments(parser: ArgumentParser, required: bool = False) -> None:
    """What reads texts, and when a mask fits one.

    Args:
        parser: to add to.
        required: whether there is nothing to do without a CLIP.
    """
    parser.add_argument(
        '--clip-weights', required=required, help='CLIP that reads text and images (file or tag)'
    )
    parser.add_argument('--clip-model', help='open_clip model, where the weights do not tell')
    parser.add_argument(
        '--negatives', nargs='+', default=list(NEGATIVES), help='what nothing is (%(default)s)'
    )
    parser.add_argument('--temperature', type=float, default=0.1, help='of scores (%(default)s)')
    parser.add_argument(
        '--threshold', type=float, default=0.5, help='of a score to be found (%(default)s)'
    )


def add_scene_arguments(parser: ArgumentParser) -> None:
    """What a user may know better about a scene than its files tell, and where it is worked on."""
    parser.add_argument('--images', help='folder of the posed images of a cloud or result')
    parser.add_argument(
        '--max-views', type=int, default=64, help='images of a folder (default: %(default)s)'
    )
    parser.add_argument('--up', choices=UPS, help='axis of a scan')
    parser.add_argument('--device', default='cpu', help='cpu, cuda, ... (default: %(default)s)')
    add_scan_arguments(parser)
    add_recording_arguments(parser)


def check_scene_arguments(args: Namespace, texts: Sequence[str] = ()) -> None:
    """What can be wrong is found before anything slow is loaded.

    Raises:
        FileNotFoundError: no such input, config or checkpoint.
        ValueError: numbers out of range, a config without a checkpoint, or an empty text.
    """
    if not Path(args.input).exists():
        raise FileNotFoundError(f'{args.input}: no such file or folder')
    if not 0 < args.threshold < 1 or not args.temperature > 0 or args.max_views < 1:
        raise ValueError(
            '--threshold lies between 0 and 1, --temperature and --max-views are positive'
        )
    model_files(args)
    for text in (*texts, *args.negatives):
        if not text.strip():
            raise ValueError('--text and --negatives: an empty text')


def is_field(path: str | Path) -> bool:
    """Whether a path is a fitted field: its file, or its folder."""
    return Path(path).suffix == '.pth' or (Path(path) / FIELD_FILE).is_file()


def open_input(args: Namespace, progress: Progress = show_progress) -> 'OpenedScene':
    """The scene of the input as it lies there; what had to be assumed is told.

    Raises:
        FileNotFoundError, ValueError: as ``open_scene``; a model for what is segmented already.
    """
    from .opened_scene import open_scene

    progress('read', 0, 1)
    options = {'unit': args.unit, 'columns': args.columns, 'up': args.up}
    scene = open_scene(args.input, args.images, **options, **recording_options(args))
    progress('read', 1, 1)
    tell(scene.warnings, args.warnings)
    if scene.segmentation is not None and args.config is not None:
        raise ValueError(f'{args.input}: is segmented already; leave --config out')
    return scene


def segmented(
    scene: 'OpenedScene', args: Namespace, progress: Progress = show_progress
) -> 'OpenedScene':
    """The scene with what a model says of it, kept as a result in ``--out``."""
    from .opened_scene import scene_of_result
    from .segment_scene import segment_scene

    config, checkpoint = model_files(args)
    # a fused model looks through the CLIP that reads the text
    clip = None
    if args.clip_weights is not None:
        model = {} if args.clip_model is None else {'model': args.clip_model}
        clip = {'weights': args.clip_weights, **model}
    result = segment_scene(scene, config, checkpoint, clip, args.device, progress)
    result.save(args.out)
    return scene_of_result(result, args.input, scene.recording)


def text_index(
    scene: 'OpenedScene',
    args: Namespace,
    reader: 'ScanImageReader',
    progress: Progress = show_progress,
) -> 'SceneIndex':
    """What answers texts, made once and kept with its result, of a scan in ``--out``."""
    from .opened_scene import RESULT_FILE
    from .scene_index import INDEX_NAME, load_or_index

    is_result = (Path(args.input) / RESULT_FILE).is_file()
    home = Path(args.input if is_result else args.out)
    return load_or_index(home / INDEX_NAME, scene, reader, progress)


def text_reader(args: Namespace) -> 'ScanImageReader':
    """The CLIP of ``--clip-weights``."""
    from .scene_index import text_image_reader

    return text_image_reader(args.clip_weights, args.clip_model, args.max_views, args.device)
