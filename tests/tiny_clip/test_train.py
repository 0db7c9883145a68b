"""Crops, loss and checkpoint of the small CLIP on a hand-drawn world of two patterns."""

import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.clip.text import tokenize
from oneformer3d.clip.weights import weights_digest
from oneformer3d.data.class_tables import get_class_table
from oneformer3d.tiny_clip import run as tiny_run
from oneformer3d.tiny_clip.crops import (
    anywhere,
    class_weights,
    cut_crops,
    object_windows,
    random_windows,
    read_regions,
)
from oneformer3d.tiny_clip.probe import accuracies, dense_features, linear_probe, sample_pixels
from oneformer3d.tiny_clip.train import (
    NOT_READ,
    TinyClipSettings,
    build_tiny_clip,
    contrastive_loss,
    other_words,
    random_caption,
    save_tiny_clip,
    tiny_config,
    train_text_tower,
    train_tiny_clip,
)

SMALL = TinyClipSettings(steps=40, batch_size=24, text_steps=20, crop_size=32, width=8, seed=3)
HEIGHT, WIDTH = 96, 128


def draw_image(rng: np.random.Generator, classes: list[str]) -> tuple[np.ndarray, ...]:
    """A grey wall with a patch of each class: horizontal stripes, vertical ones or plain."""
    table = get_class_table('synthetic')
    color = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    semantic = np.full((HEIGHT, WIDTH), table.raw_ids[0], np.uint8)
    instance = np.zeros((HEIGHT, WIDTH), np.uint16)
    for number, name in enumerate(classes):
        left, top = 6 + 60 * number + rng.integers(0, 12), rng.integers(4, 40)
        patch = (slice(top, top + 44), slice(left, left + 40))
        rows, columns = np.mgrid[patch]
        axis = {'picture': rows, 'window': columns}.get(name, 0 * rows)
        bright, dark = rng.integers(150, 256, 3), rng.integers(0, 100, 3)
        color[patch] = np.where((axis // 4 % 2 == 0)[..., None], bright, dark)
        semantic[patch] = table.raw_ids[table.classes.index(name)]
        instance[patch] = number + 1
    return color, semantic, instance


def write_world(root, split: str, num_images: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    folder = root / 'posed_images' / f'{split}_room'
    folder.mkdir(parents=True)
    images = []
    for number in range(num_images):
        names = list(rng.permutation(['picture', 'window', 'chair'])[:2])
        color, semantic, instance = draw_image(rng, names)
        frame = f'{number:05d}'
        cv2.imwrite(str(folder / f'{frame}.jpg'), color[..., ::-1])
        cv2.imwrite(str(folder / f'{frame}.semantic.png'), semantic)
        cv2.imwrite(str(folder / f'{frame}.instance.png'), instance)
        stem = f'{split}_room/{frame}'
        images.append(
            {
                'frame': frame,
                'img_path': f'{stem}.jpg',
                'depth_path': f'{stem}.png',
                'world_from_cam': np.eye(4).tolist(),
            }
        )
    scene = {
        'scene_id': f'{split}_room',
        'lidar_points': {'num_pts_feats': 6, 'lidar_path': f'{split}_room.bin'},
        'image_size': list(cv2.imread(str(folder / '00000.jpg')).shape[:2]),
        'cam2img': np.eye(3).tolist(),
        'images': images,
    }
    infos = {'metainfo': {'schema_version': 1, 'dataset': 'synthetic'}, 'data_list': [scene]}
    (root / f'oneformer3d_infos_{split}.json').write_text(json.dumps(infos))


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp('world')
    write_world(root, 'train', 12, seed=0)
    write_world(root, 'val', 6, seed=1)
    return root


def test_regions_are_what_was_drawn(world) -> None:
    regions = read_regions(world, 'train')
    names = np.array(regions.table.classes)[regions.label]
    assert sorted(set(names)) == ['chair', 'picture', 'wall', 'window']
    assert len(regions) == 12 * 3
    things = ~np.isin(regions.label, regions.table.stuff)
    box = regions.box[things]
    assert ((box[:, 2:] - box[:, :2]) == [40, 44]).all()
    inside = (regions.pixels[things] >= box[:, None, :2]) & (
        regions.pixels[things] < box[:, None, 2:]
    )
    assert inside.all()
    wall = regions.pixels[~things]
    for image, pixels in zip(regions.image[~things], wall):
        gray = regions.images[image][pixels[:, 1], pixels[:, 0]].astype(int)
        assert np.median(np.abs(gray - 128)) < 4


def test_windows_lie_in_the_image_and_crops_show_them(world) -> None:
    regions = read_regions(world, 'train')
    rng = np.random.default_rng(0)
    indices = rng.integers(len(regions), size=200)
    windows = random_windows(regions, indices, 32, rng)
    assert (windows[:, :2] >= 0).all()
    assert (windows[:, 0] + windows[:, 2] <= WIDTH).all()
    assert (windows[:, 1] + windows[:, 2] <= HEIGHT).all()
    things = np.flatnonzero(~np.isin(regions.label, regions.table.stuff))
    windows, share = object_windows(regions, things, context=1.0)
    crops = cut_crops(regions, things, windows, 41)
    for row, (left, top, side) in enumerate(windows):
        assert side == 41  # √(40 · 44)
        image = regions.image[things[row]]
        piece = (slice(top, top + side), slice(left, left + side))
        np.testing.assert_array_equal(crops[row], regions.images[image][piece])
        counted = (regions.labels[image][piece] == regions.label[things[row]]).mean()
        assert abs(share[row] - counted) < 0.1
        assert counted > 0.85  # the patch is 40 pixels wide


def test_captions_are_about_what_fills_the_crop(world) -> None:
    regions = read_regions(world, 'train')
    rng = np.random.default_rng(0)
    indices = rng.integers(len(regions), size=200)
    windows = random_windows(regions, indices, 32, rng)
    share = [
        (regions.labels[regions.image[i], y : y + s, x : x + s] == regions.label[i]).mean()
        for i, (x, y, s) in zip(indices, windows)
    ]
    assert np.mean(np.array(share) > 0.35) > 0.97


def test_rare_classes_are_drawn_more_often_than_they_occur() -> None:
    weights = class_weights(np.array([0] * 16 + [1] * 4), 3)
    assert weights.sum() == pytest.approx(1)
    assert weights[:16].sum() / weights[16:].sum() == pytest.approx(2)


def test_the_loss_takes_every_image_of_a_caption_as_positive() -> None:
    images, texts = F.normalize(torch.randn(6, 8), dim=-1), F.normalize(torch.randn(3, 8), dim=-1)
    caption, scale = torch.tensor([0, 2, 1, 0, 2, 0]), torch.tensor(7.0)
    logits = [[float(scale * image @ text) for text in texts] for image in images]
    to_text = np.mean(
        [-np.log(np.exp(row[c]) / np.exp(row).sum()) for row, c in zip(logits, caption)]
    )
    to_image = []
    for t in range(3):
        column = np.exp([row[t] for row in logits])
        own = [b for b in range(6) if caption[b] == t]
        to_image.append(np.mean([-np.log(column[b] / column.sum()) for b in own]))
    ours = contrastive_loss(images, texts, caption, scale)
    assert float(ours) == pytest.approx((to_text + np.mean(to_image)) / 2, rel=1e-5)


def test_captions_without_an_image_push_the_images_away_and_nothing_else() -> None:
    images, texts = F.normalize(torch.randn(6, 8), dim=-1), F.normalize(torch.randn(5, 8), dim=-1)
    caption, scale = torch.tensor([0, 2, 1, 0, 2, 0]), torch.tensor(7.0)
    # the rows that have images, whose half of the loss knows no others
    logits = scale * images @ texts.t()
    to_text = F.cross_entropy(logits, caption)
    of_three = contrastive_loss(images, texts[:3], caption, scale)
    to_image = 2 * of_three - F.cross_entropy(logits[:, :3], caption)
    ours = contrastive_loss(images, texts, caption, scale)
    assert float(ours) == pytest.approx(float(to_text + to_image) / 2, rel=1e-5)


def test_what_is_nothing_in_particular_is_learnt_on_request(world) -> None:
    regions = read_regions(world, 'train')
    short = {'steps': 2, 'batch_size': 8, 'text_steps': 2, 'crop_size': 32, 'width': 8}
    plain = TinyClipSettings(**short)
    unknown = TinyClipSettings(**short, neutral_share=0.5, num_others=6)
    losses = []
    first, second = (
        weights_digest(train_tiny_clip(regions, one, lambda _, loss: losses.append(loss)))
        for one in (plain, unknown)
    )
    assert first != second
    assert np.isfinite(losses).all()

    words = other_words(['chair', 'traffic light'])
    assert len(words) > 10_000
    assert not {'chair', 'light', 'object', *NOT_READ} & set(words)
    windows = anywhere(regions, 50, 32, np.random.default_rng(0))
    assert (windows[:, :2] >= 0).all()
    assert (windows[:, :2] + windows[:, 2:] <= [WIDTH, HEIGHT]).all()


def test_with_one_image_per_caption_the_loss_is_open_clips() -> None:
    from open_clip.loss import ClipLoss

    images, texts = F.normalize(torch.randn(5, 8), dim=-1), F.normalize(torch.randn(5, 8), dim=-1)
    ours = contrastive_loss(images, texts, torch.arange(5), torch.tensor(10.0))
    torch.testing.assert_close(ours, ClipLoss()(images, texts, torch.tensor(10.0)))


def test_one_command_trains_measures_saves_and_is_not_repeated(world, tmp_path) -> None:
    losses = []
    report = tiny_run.make_tiny_clip(
        world, tmp_path, SMALL, progress=lambda _, loss: losses.append(loss)
    )
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert report['crop_zero_shot'] > 0.6  # of 16 classes, 3 drawn
    assert report['object_probe'] > 0.6
    again = tiny_run.make_tiny_clip(
        world, tmp_path, SMALL, progress=lambda *_: pytest.fail('trained again')
    )
    assert again == report
    encoder = ClipEncoder(weights=tmp_path / tiny_run.CHECKPOINT_NAME)
    assert encoder.input_size == (96, 128)
    assert encoder.name == 'tiny-clip'
    images = torch.zeros(1, 3, HEIGHT, WIDTH)
    assert encoder(images).feat.shape == (1, encoder.num_channels, *encoder.grid)


def test_the_text_tower_learns_that_templates_do_not_matter() -> None:
    names = get_class_table('synthetic').classes
    rng = np.random.default_rng(7)
    captions = [[random_caption(name, rng) for name in names] for _ in range(2)]
    found = []
    for steps in (0, 40):
        settings = TinyClipSettings(crop_size=32, width=8, text_steps=steps)
        clip = build_tiny_clip(settings)
        train_text_tower(clip, names, settings)
        first, second = (clip.encode_text(tokenize(clip, c), normalize=True) for c in captions)
        found.append(float(((first @ second.t()).argmax(1) == torch.arange(16)).float().mean()))
    assert found[0] < 0.5
    assert found[1] > 0.9


def test_training_is_a_function_of_its_seed(world) -> None:
    regions = read_regions(world, 'train')
    short = TinyClipSettings(steps=2, batch_size=8, text_steps=2, crop_size=32, width=8)
    first, second = (weights_digest(train_tiny_clip(regions, short)) for _ in range(2))
    assert first == second


def test_a_checkpoint_is_plain_tensors_and_text_and_gives_the_model_back(tmp_path) -> None:
    clip = build_tiny_clip(SMALL).eval()
    save_tiny_clip(tmp_path / 'a.pth', clip, SMALL, {'layers': ['layer2'], 'input_size': 64}, {})
    torch.load(tmp_path / 'a.pth', weights_only=True)
    encoder = ClipEncoder(weights=tmp_path / 'a.pth')
    assert encoder.weights_digest == weights_digest(clip.visual)
    assert encoder.grid == (8, 8)
    over = ClipEncoder(weights=tmp_path / 'a.pth', layers='layer3', input_size=96, mode='tokens')
    assert over.grid == (6, 6)
    text = F.normalize(clip.encode_text(torch.zeros(1, 16, dtype=torch.long)), dim=-1)
    assert text.shape == (1, tiny_config(SMALL)['embed_dim'])


def test_dense_features_are_read_where_the_pixels_are() -> None:
    columns = (torch.arange(16) + 0.5) / 16
    ramp = columns.expand(1, 8, 16)
    pixels = torch.tensor([[8.0, 3.0], [64.0, 40.0], [100.0, 60.0]])
    read = sample_pixels(ramp, pixels, (64, 128))
    np.testing.assert_allclose(read[:, 0], (pixels[:, 0] + 0.5) / 128, rtol=1e-5)


def test_probe_and_accuracies() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 120)
    features = np.eye(3)[label] + 0.05 * rng.standard_normal((120, 3))
    assert linear_probe(features[:80], label[:80], features[80:], label[80:]) == (1.0, 1.0)
    assert accuracies(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1])) == (0.75, 0.5)


def test_dense_features_of_regions_have_one_row_per_pixel(world) -> None:
    regions = read_regions(world, 'val')
    encoder = ClipEncoder(tiny_config(SMALL), weights='none', input_size=(96, 128))
    features = dense_features(encoder, regions)
    assert features.shape == (*regions.pixels.shape[:2], encoder.num_channels)


def test_bad_input_names_the_fault(world, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match='oneformer3d_infos_train'):
        read_regions(tmp_path, 'train')
    with pytest.raises(ValueError, match='crops'):
        TinyClipSettings(crop_size=50)
    label_image = world / 'posed_images' / 'val_room' / '00000.semantic.png'
    content = label_image.read_bytes()
    label_image.unlink()
    with pytest.raises(FileNotFoundError, match=r'00000\.semantic\.png'):
        read_regions(world, 'val')
    label_image.write_bytes(content)
