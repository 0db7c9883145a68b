"""Look at a scene in the browser, ask it with words, and see which images saw a point.

    python tools/view.py SCAN_FOLDER              (segmented first, with its images)
    python tools/view.py RESULT --clip-weights CLIP
    python tools/view.py SCAN_FOLDER --config CONFIG --checkpoint WEIGHTS --clip-weights CLIP
    python tools/view.py room.ply --without-model (the cloud and its pieces)
    python tools/view.py DATA_ROOT/points/SCENE.bin (its labels, to correct)
    python tools/view.py FIELD --clip-weights CLIP  (of tools/fit_field.py, rendered as one moves)

SCAN_FOLDER holds posed RGB-D images, RESULT is a folder that tools/infer.py wrote, DATA_ROOT one
that tools/create_data.py made: with --config its labels are the truth a model is held against.
Prints the address of the page, which this machine alone can open; from another one: ssh -L
7007:localhost:7007 HOST. --html writes the page to a file instead. See docs/explore.md.
"""

import argparse
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from oneformer3d.engine.cli import ToolParser, add_model_arguments, run_tool
from oneformer3d.engine.progress import show_progress
from oneformer3d.inference.scene_arguments import (
    Progress,
    add_scene_arguments,
    add_text_arguments,
    check_scene_arguments,
    is_field,
    open_input,
    segmented,
    text_index,
    text_reader,
)

if TYPE_CHECKING:
    from oneformer3d.inference.labelled_scene import LabelledScene
    from oneformer3d.inference.opened_scene import OpenedScene
    from oneformer3d.inference.scan_images import ScanFrames
    from oneformer3d.structures import Segmentation
    from oneformer3d.viewer.editor import SceneEditor
    from oneformer3d.viewer.images import SceneImages
    from oneformer3d.viewer.live import LiveScene, TextAsker
    from oneformer3d.viewer.scene import GroundTruth


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('input', help='scan, cloud, labelled scene, or result of tools/infer.py')
    parser.add_argument('--html', metavar='FILE', help='write the page to a file, serve nothing')
    parser.add_argument(
        '--out', default='outputs/view', help='for what is made of a scan (default: %(default)s)'
    )
    add_model_arguments(parser)
    parser.add_argument(
        '--without-model', action='store_true', help='segment nothing: the cloud and its pieces'
    )
    add_text_arguments(parser)
    add_scene_arguments(parser)

    # the server
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen at; another than this one lets in everybody who reaches it',
    )
    parser.add_argument('--port', type=int, default=7007, help='0: any free one (%(default)s)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    check(args)
    if args.html is None:
        serve(args)
        return
    from oneformer3d.viewer.page import write_page

    write_page(args.html, make_live(args).scene)
    print(f'page: {args.html}')


def check(args: argparse.Namespace) -> None:
    """What can be wrong is found before anything slow is loaded."""
    if args.without_model and args.config is not None:
        raise ValueError('--without-model and --config contradict each other')
    if is_field(args.input) and args.config is not None:
        raise ValueError(f'{args.input}: is a field, which no --config segments')
    check_scene_arguments(args)


def make_live(args: argparse.Namespace, progress: Progress = show_progress) -> 'LiveScene':
    """The scene with all that the arguments make of it; says what is missing."""
    if is_field(args.input):
        return live_field(args, progress)
    from oneformer3d.inference.scan_images import read_scan_frames
    from oneformer3d.inference.scene_index import pieces_of
    from oneformer3d.viewer.live import LiveScene
    from oneformer3d.viewer.scene import view_scene

    scene, labelled, truth = open_and_segment(args, progress)
    images, asker, directions = None, None, None
    if scene.recording is not None:
        progress('images', 0, 1)
        images = kept_images(read_scan_frames(scene.recording, args.max_views))
        progress('images', 1, 1)
    if args.clip_weights is None or scene.recording is None:
        missing = '--clip-weights' if scene.recording is not None else 'images: see --images'
        print(f'no texts can be asked without {missing}')
        mask_of_point = pieces_of(scene)
    else:
        asker = text_asker(scene, args, progress)
        mask_of_point, directions = asker.index.mask_of_point, asker.index.directions

    title = Path(scene.path or args.input).resolve().name

    def view(result: 'Segmentation | None'):
        return view_scene(
            title,
            scene.upright,
            scene.rgb,
            result,
            mask_of_point=mask_of_point,
            truth=truth,
            directions=directions,
        )

    return LiveScene(
        view(scene.segmentation),
        scene.points[:, :3].astype(float) + scene.origin,  # (N, 3) where the cameras are
        (scene.upright_from_scan, -scene.upright_from_scan @ scene.origin),
        asker,
        images,
        scene.segmentation,
        editor_of(scene, labelled, args),
        view,
    )


def live_field(args: argparse.Namespace, progress: Progress) -> 'LiveScene':
    """A fitted field: its surfaces, views of it, and text at every point."""
    import numpy as np

    from oneformer3d.clip.text import encode_text
    from oneformer3d.data.upright import rotation_to_z_up, up_from_axis, up_from_cameras
    from oneformer3d.fields.asking.answers import phrase_encoder
    from oneformer3d.fields.asking.text import TextQuery
    from oneformer3d.fields.fitting.field_file import load_field
    from oneformer3d.files.devices import pick_device
    from oneformer3d.viewer.field_scene import FieldAsker, FieldRenderer, field_cloud, view_field
    from oneformer3d.viewer.live import LiveScene

    progress('read', 0, 1)
    fitted, _ = load_field(args.input, pick_device(args.device))
    if args.up is not None:
        up = up_from_axis(args.up)
    else:
        up = up_from_cameras(fitted.observations.camera.world_from_cam.double().numpy())
    cloud = field_cloud(fitted, rotation_to_z_up(up))
    progress('read', 1, 1)

    asker = None
    if args.clip_weights is None:
        print('no texts can be asked without --clip-weights')
    else:
        clip_model = args.clip_model or 'ViT-B-16'
        encoder = phrase_encoder(args.input, fitted, clip_model, args.clip_weights)

        def encode(phrases: list[str], negatives: list[str]) -> TextQuery:
            return TextQuery(
                tuple(phrases), *(encode_text(encoder.clip, one) for one in (phrases, negatives))
            )

        asker = FieldAsker(cloud, encode, tuple(args.negatives), args.temperature, args.threshold)

    progress('colours', 0, 1)
    scene = view_field(Path(args.input).resolve().name, cloud)
    progress('colours', 1, 1)
    return LiveScene(
        scene,
        cloud.points.double().numpy(),
        (cloud.upright_from_world, np.zeros(3)),
        asker,
        renderer=FieldRenderer(cloud),
    )


def open_and_segment(
    args: argparse.Namespace, progress: Progress
) -> 'tuple[OpenedScene, LabelledScene | None, GroundTruth | None]':
    """The scene as it is looked at; its labels where they can be corrected, or are the truth."""
    from oneformer3d.data.scenes import find_infos
    from oneformer3d.inference.labelled_scene import open_labelled_scene

    if Path(args.input).is_dir() and find_infos(args.input):
        raise ValueError(
            f'{args.input}: is a data root; name one of its scenes: {args.input}/points/NAME.bin'
        )
    labelled = open_labelled_scene(args.input)
    if labelled is not None and args.config is None:
        return labelled.opened, labelled, None
    if labelled is not None:
        scene = segmented(replace(labelled.opened, segmentation=None), args, progress)
        print(f'result: {args.out}')
        return scene, None, truth_of(labelled)

    scene = open_input(args, progress)
    if args.without_model and scene.segmentation is None:
        print('without a model there are no classes and objects, only the cloud and its pieces')
    elif scene.segmentation is None:
        scene = segmented(scene, args, progress)
        print(f'result: {args.out}')
    return scene, None, None


def truth_of(labelled: 'LabelledScene') -> 'GroundTruth':
    """Labels on disk, to hold a model against."""
    import numpy as np

    from oneformer3d.viewer.scene import NONE, GroundTruth

    table = labelled.table
    semantic = table.contiguous_from_raw(labelled.files.semantic)  # (N,) 0…C
    none = semantic == table.ignore_index
    return GroundTruth(np.where(none, NONE, semantic), table.classes, table.palette)


def editor_of(
    scene: 'OpenedScene', labelled: 'LabelledScene | None', args: argparse.Namespace
) -> 'SceneEditor | None':
    """What corrects the labels: of a labelled scene in its files, of a result in a copy of it."""
    from oneformer3d.data.scene_labels import kept_path, write_scene_labels
    from oneformer3d.inference.labelled_scene import ids_on_disk
    from oneformer3d.inference.opened_scene import RESULT_FILE
    from oneformer3d.viewer.editor import SceneEditor

    if scene.segmentation is None:
        return None
    if labelled is not None:
        files, table = labelled.files, labelled.table
        names = [table.classes[k] for k in table.instance_classes]

        def save_labels(result: 'Segmentation') -> str:
            write_scene_labels(files, *ids_on_disk(labelled, result))
            return f'saved; the first labels are kept in {kept_path(files.semantic_path).name}'

        return SceneEditor(scene.segmentation, names, save_labels)

    home = Path(args.input if (Path(args.input) / RESULT_FILE).is_file() else args.out)
    copy = home.with_name(f'{home.name}_corrected')

    def save_result(result: 'Segmentation') -> str:
        result.save(copy)
        return f'saved in {copy}'

    return SceneEditor(scene.segmentation, scene.segmentation.class_names, save_result)


def kept_images(frames: 'ScanFrames') -> 'SceneImages':
    """Images as the page shows them."""
    from oneformer3d.viewer.images import make_images

    return make_images(
        frames.frames, frames.colors, frames.camera, frames.depth, frames.depth_camera
    )


def text_asker(scene: 'OpenedScene', args: argparse.Namespace, progress: Progress) -> 'TextAsker':
    """What answers texts, from an index that is made once."""
    from oneformer3d.viewer.live import TextAsker

    reader = text_reader(args)
    index = text_index(scene, args, reader, progress)

    def encode(texts: list[str]):
        return reader.clip.clip.encode_text(texts).numpy()

    return TextAsker(index, encode, encode(args.negatives), args.temperature, args.threshold)


def serve(args: argparse.Namespace) -> None:
    """Tell the address, make the scene while its page says how far it is, and answer."""
    from oneformer3d.viewer.server import LOOPBACK, SceneServer

    try:
        server = SceneServer(None, args.host, args.port)
    except OSError as error:
        where = f'{args.host}:{args.port}'
        raise OSError(f'{where}: {error.strerror}; --port 0 takes a free one') from error
    if args.host not in LOOPBACK:
        print(f'warning: everybody who reaches {args.host} can see this scene')
    print(f'open {server.url} in a browser; Ctrl-C ends', flush=True)

    def progress(step: str, done: int, total: int) -> None:
        show_progress(step, done, total)
        server.report(step, done, total)

    answering = threading.Thread(target=server.serve_forever, daemon=True)
    with server:
        answering.start()
        try:
            server.show(make_live(args, progress))
            print('the scene is there', flush=True)
            answering.join()
        except KeyboardInterrupt:
            print('ended')
        finally:
            server.shutdown()


if __name__ == '__main__':
    run_tool(main)
