"""Ask a scene with words: which of its objects fit, where they are, and which images show them.

    python tools/query.py SCAN_FOLDER --text "a chair" "something to sit on" --clip-weights WEIGHTS
    python tools/query.py RESULT --text "a chair" --clip-weights WEIGHTS --out DIR
    python tools/query.py FIELD --text "a chair" --clip-weights WEIGHTS

SCAN_FOLDER holds posed RGB-D images, RESULT is a folder that tools/infer.py wrote, FIELD one of
tools/fit_field.py. Objects are the instances of a result, else pieces of surface; with --config and
--checkpoint a scan is segmented first. DIR receives answers.json (objects by score, with box and
pixels), answer_0000.ply and so on (the points with their scores) and answers.png, with --html
scene.html as well, which any browser shows; see docs/explore.md.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from oneformer3d.engine.cli import (
    ToolParser,
    add_recording_arguments,
    add_scan_arguments,
    model_files,
    recording_options,
    run_tool,
    tell,
)
from oneformer3d.engine.progress import show_progress

if TYPE_CHECKING:
    from oneformer3d.inference.opened_scene import OpenedScene

NEGATIVES = ('object', 'things', 'stuff', 'texture')
FIELD_FILE = 'field.pth'
MAX_SHOWN = 5


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('input', help='scan, result of tools/infer.py, or fitted field')
    parser.add_argument('--out', default='outputs/query', help='folder (default: %(default)s)')

    # text
    parser.add_argument('--text', nargs='+', required=True, help='words or phrases to look for')
    parser.add_argument(
        '--negatives', nargs='+', default=list(NEGATIVES), help='what nothing is (%(default)s)'
    )
    parser.add_argument(
        '--clip-weights', required=True, help='CLIP that reads text and images (file or tag)'
    )
    parser.add_argument('--clip-model', help='open_clip model, where the weights do not tell')
    parser.add_argument('--temperature', type=float, default=0.1, help='of scores (%(default)s)')
    parser.add_argument(
        '--html', action='store_true', help='write as well: scene.html, which any browser shows'
    )
    parser.add_argument(
        '--threshold', type=float, default=0.5, help='of a score to be found (%(default)s)'
    )

    # the scene
    parser.add_argument('--config', help='of a model that segments a scan first')
    parser.add_argument('--checkpoint', help='its weights')
    parser.add_argument('--images', help='folder of the posed images of a cloud or result')
    parser.add_argument(
        '--max-views', type=int, default=64, help='images of a folder (default: %(default)s)'
    )
    parser.add_argument('--up', choices=('x', 'y', 'z', '-x', '-y', '-z'), help='axis of a scan')
    parser.add_argument('--device', default='cpu', help='cpu, cuda, ... (default: %(default)s)')
    add_scan_arguments(parser)
    add_recording_arguments(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    check(args)
    if is_field(Path(args.input)):
        ask_field(args)
    else:
        ask_scene(args)


def check(args: argparse.Namespace) -> None:
    """What can be wrong is found before anything slow is loaded."""
    if not Path(args.input).exists():
        raise FileNotFoundError(f'{args.input}: no such file or folder')
    if args.html and is_field(Path(args.input)):
        raise ValueError(f'{args.input}: --html shows scans and results; a field has text.ply')
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise NotADirectoryError(f'{args.out}: is not a folder')
    if not 0 < args.threshold < 1 or not args.temperature > 0 or args.max_views < 1:
        raise ValueError(
            '--threshold lies between 0 and 1, --temperature and --max-views are positive'
        )
    model_files(args)
    for text in (*args.text, *args.negatives):
        if not text.strip():
            raise ValueError('--text and --negatives: an empty text')


def ask_scene(args: argparse.Namespace) -> None:
    """Answer from the images of a scan or a result."""
    from oneformer3d.files.images import write_png
    from oneformer3d.inference.opened_scene import RESULT_FILE
    from oneformer3d.inference.scene_index import INDEX_NAME, load_or_index, text_image_reader
    from oneformer3d.open_vocabulary.answers import ranked_answer, write_answers
    from oneformer3d.viewer.page import PAGE, write_page
    from oneformer3d.viewer.scene import AskedTexts, view_scene
    from oneformer3d.visualization.figure import score_figure

    show_progress('load CLIP', 0, 1)
    reader = text_image_reader(args.clip_weights, args.clip_model, args.max_views, args.device)
    show_progress('load CLIP', 1, 1)
    scene = open_input(args)
    if scene.segmentation is None:
        print('no segmentation: the answers are pieces of surface, not whole objects')

    # an index belongs to its result; of a scan it is kept with the answers
    is_result = (Path(args.input) / RESULT_FILE).is_file()
    home = Path(args.input if is_result else args.out)
    index = load_or_index(home / INDEX_NAME, scene, reader, show_progress)

    texts = tuple(args.text)
    vectors, negatives = (
        reader.clip.clip.encode_text(words).numpy() for words in (texts, args.negatives)
    )
    result = index.query(vectors, negatives, temperature=args.temperature, threshold=args.threshold)

    show_progress('write files', 0, 1)
    write_answers(args.out, index, result, texts, scene.points[:, :3])
    titles = {f'{row + 1}: {shorten(text)}': row for row, text in enumerate(texts)}
    heat = {title: result.point_scores(row) for title, row in titles.items()}
    write_png(Path(args.out) / 'answers.png', score_figure(scene.upright, scene.rgb, heat))
    if args.html:
        asked = AskedTexts(index, texts, result, args.threshold)
        title = Path(scene.path or args.input).resolve().name
        page = view_scene(title, scene.upright, scene.rgb, scene.segmentation, asked)
        write_page(Path(args.out) / PAGE, page)
    show_progress('write files', 1, 1)

    for row, text in enumerate(texts):
        report(text, ranked_answer(index, result, row, MAX_SHOWN))
    print(f'{len(index.names)} masks, {len(index.frames)} images: {args.out}')


def open_input(args: argparse.Namespace) -> 'OpenedScene':
    """The scene of the input, segmented where a model is given."""
    from oneformer3d.inference.opened_scene import open_scene, scene_of_result, segment_scene

    show_progress('read', 0, 1)
    options = {'unit': args.unit, 'columns': args.columns, 'up': args.up}
    scene = open_scene(args.input, args.images, **options, **recording_options(args))
    show_progress('read', 1, 1)
    tell(scene.warnings, args.warnings)
    if args.config is None:
        return scene
    if scene.segmentation is not None:
        raise ValueError(f'{args.input}: is segmented already; leave --config out')

    result = segment_scene(
        scene, args.config, args.checkpoint, clip_settings(args), args.device, show_progress
    )
    result.save(args.out)
    return scene_of_result(result, args.input, scene.recording)


def clip_settings(args: argparse.Namespace) -> dict[str, str]:
    """The CLIP of a fused model: the one that reads the text."""
    model = {} if args.clip_model is None else {'model': args.clip_model}
    return {'weights': args.clip_weights, **model}


def ask_field(args: argparse.Namespace) -> None:
    """Answer at the surfaces that the views of a fitted field observed."""
    from oneformer3d.fields.asking.answers import encode_phrases, write_relevancy
    from oneformer3d.fields.fitting.field_file import load_field
    from oneformer3d.fields.fitting.surfaces import surface_points
    from oneformer3d.files.devices import pick_device

    fitted, _ = load_field(args.input, pick_device(args.device))
    text = encode_phrases(
        args.input,
        fitted,
        args.text,
        args.negatives,
        args.clip_model or 'ViT-B-16',
        args.clip_weights,
    )
    points, out = surface_points(fitted), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    rows = write_relevancy(out, fitted, points, text, args.threshold, args.temperature)
    for phrase, highest, share in rows:
        found = f'{share:.1%} of the points' if share else 'nothing'
        print(f'{phrase}: {found}, highest score {highest:.2f}')
    print(f'{len(points)} points: {args.out}')


def is_field(path: Path) -> bool:
    """Whether a path is a fitted field: its file, or its folder."""
    return path.suffix == '.pth' or (path / FIELD_FILE).is_file()


def report(text: str, found: dict) -> None:
    """An answer in a few lines."""
    print(f'{text}:' if found['found'] else f'{text}: nothing like that here')
    for mask in found['masks']:
        x, y, z = mask['box'][:3]
        seen = ', '.join(view['frame'] for view in mask['views'][:3])
        name = mask['name'] or 'surface'
        print(
            f'  {mask["score"]:.2f} {name:15s} {mask["num_points"]:6d} points at '
            f'({x:.2f}, {y:.2f}, {z:.2f}), seen in {seen or "no image"}'
        )


def shorten(text: str, most: int = 48) -> str:
    """One line for a title."""
    line = ' '.join(text.split())
    return line if len(line) <= most else f'{line[: most - 1]}…'


if __name__ == '__main__':
    run_tool(main)
