"""Draw where a predicted instance samples: its points on the views that it read.

    python tools/vis_stm.py CONFIG CHECKPOINT --scene room5000_00 --instance 0 --out pictures/

Writes SCENE.INSTANCE.LAYER.png, the views side by side, the one that sees most of the instance
first: white dots are its visible points, boxes what the query samples around (its mask, and the
superpoint it came from), coloured points where it samples, one colour for every group of channels.
"""

import argparse
from pathlib import Path

from oneformer3d.engine.cli import ToolParser, add_config_options, run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', help='config of a model with STMQueryDecoder')
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument('--scene', help='name of the scene (default: the first of the test set)')
    parser.add_argument(
        '--instance', type=int, default=0, help='rank of the instance by score (%(default)s)'
    )
    parser.add_argument('--layer', type=int, default=-1, help='of the decoder (%(default)s)')
    parser.add_argument('--out', default='outputs/stm_vis', help='folder (%(default)s)')
    add_config_options(parser)
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_tool(parse_args)  # help and wrong arguments are answered before anything heavy is imported

import torch
from mmengine.dataset.utils import pseudo_collate
from mmengine.registry import DefaultScope

from oneformer3d.engine.configs import load_config, read_values
from oneformer3d.files.images import read_image, write_png
from oneformer3d.registry import DATASETS, MODELS
from oneformer3d.segmentor.weights import load_checkpoint
from oneformer3d.stm.sampling_points import beside, draw_samples, query_of_mask, samples_of_query


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = load_config(args.config, read_values(args.cfg_options))
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        model = MODELS.build(cfg.model)
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    load_checkpoint(model, args.checkpoint)
    model.eval()
    names = [dataset.get_data_info(i)['scene_id'] for i in range(len(dataset))]
    scene = args.scene or names[0]
    if scene not in names:
        raise ValueError(f'{args.config}: no scene {scene} in its test set')
    index = names.index(scene)
    batch = model.data_preprocessor(pseudo_collate([dataset[index]]))
    inputs, samples = batch['inputs'], batch['data_samples']
    prediction = model.predict(inputs, samples)[0].pred_pts_seg
    num_instances = len(prediction.instance_scores)
    if not 0 <= args.instance < num_instances:
        raise ValueError(f'--instance: {scene} has {num_instances} instances, got {args.instance}')
    chosen = int(prediction.instance_scores.argsort()[::-1][args.instance])
    mask = prediction.pts_instance_mask[0][chosen]
    label = model.instance_classes[int(prediction.instance_labels[chosen])]
    with torch.no_grad():
        output = model(inputs, samples, mode='tensor')
    superpoints = samples[0].gt_pts_seg.sp_pts_mask
    query = query_of_mask(output['masks'][0], superpoints, mask)
    found = samples_of_query(model, inputs, samples, query, args.layer)
    if not found:
        raise ValueError(f'{scene}: no view sees instance {args.instance}')
    views = inputs['views'][0]
    frames = {frame.name: frame for frame in dataset.get_data_info(index)['scene'].frames}
    pictures = []
    for samples in found:
        image = read_image(frames[samples.frame].image_path, views.image_size, views.image_size)
        seen = views.pairs.view == views.frames.index(samples.frame)
        seen &= torch.as_tensor(mask)[views.pairs.point]
        pictures.append(draw_samples(image, samples, views.pairs.uv[seen].numpy()))
    layer = args.layer % len(model.decoder.view_layers)
    path = Path(args.out) / f'{scene}.{args.instance}.{layer}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, beside(pictures))
    name = dataset.metainfo['classes'][label]
    score = float(prediction.instance_scores[chosen])
    print(
        f'{path}: {name}, score {score:.2f}, views {", ".join(samples.frame for samples in found)}'
    )


if __name__ == '__main__':
    run_tool(main)
