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

from oneformer3d.engine.cli import ToolParser, run_tool
from oneformer3d.engine.progress import show_progress
from oneformer3d.inference.scene_arguments import (
    add_scene_arguments,
    add_text_arguments,
    check_scene_arguments,
    is_field,
    open_input,
    segmented,
    text_index,
    text_reader,
)

MAX_SHOWN = 5


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('input', help='scan, result of tools/infer.py, or fitted field')
    parser.add_argument('--out', default='outputs/query', help='folder (default: %(default)s)')
    parser.add_argument(
        '--html', action='store_true', help='write as well: scene.html, which any browser shows'
    )

    parser.add_argument('--text', nargs='+', required=True, help='words or phrases to look for')
    add_text_arguments(parser, required=True)
    parser.add_argument('--config', help='of a model that segments a scan first')
    parser.add_argument('--checkpoint', help='its weights')
    add_scene_arguments(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    check(args)
    if is_field(args.input):
        ask_field(args)
    else:
        ask_scene(args)


def check(args: argparse.Namespace) -> None:
    """What can be wrong is found before anything slow is loaded."""
    check_scene_arguments(args, args.text)
    if args.html and is_field(args.input):
        raise ValueError(f'{args.input}: --html shows scans and results; a field has text.ply')
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise NotADirectoryError(f'{args.out}: is not a folder')


def ask_scene(args: argparse.Namespace) -> None:
    """Answer from the images of a scan or a result."""
    from oneformer3d.files.images import write_png
    from oneformer3d.open_vocabulary.answers import ranked_answer, write_answers
    from oneformer3d.viewer.page import PAGE, write_page
    from oneformer3d.viewer.scene import AskedTexts, view_scene
    from oneformer3d.visualization.figure import score_figure

    show_progress('load CLIP', 0, 1)
    reader = text_reader(args)
    show_progress('load CLIP', 1, 1)
    scene = open_input(args)
    if args.config is not None:
        scene = segmented(scene, args)
    if scene.segmentation is None:
        print('no segmentation: the answers are pieces of surface, not whole objects')
    index = text_index(scene, args, reader)

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


def ask_field(args: argparse.Namespace) -> None:
    """Answer at the surfaces that the views of a fitted field observed."""
    from oneformer3d.fields.asking.answers import encode_phrases, write_relevancy
    from oneformer3d.fields.fitting.field_file import load_field
    from oneformer3d.fields.fitting.surfaces import QUERY_SPACING, surface_points
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
    points, out = surface_points(fitted, QUERY_SPACING), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    rows = write_relevancy(out, fitted, points, text, args.threshold, args.temperature)
    for phrase, highest, share in rows:
        found = f'{share:.1%} of the points' if share else 'nothing'
        print(f'{phrase}: {found}, highest score {highest:.2f}')
    print(f'{len(points)} points: {args.out}')


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
