"""One call from scan to labels: closed forms, conventions, and everything that can be wrong."""

import pytest
import torch

from oneformer3d.lifting import Reason, Visibility, opencv_from_opengl, trace_sources
from oneformer3d.mvpnet.segment_scan import segment_scan
from oneformer3d.registry import MODELS
from tests.helpers.fusion_scenes import IMAGE_SIZE, INTRINSICS, poses
from tests.mvpnet.test_segmentor import COLOURED, IMAGES, POINTS


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    settings = {
        'type': 'MVPNet',
        'num_classes': 4,
        'image_net': IMAGES,
        'point_processor': POINTS,
        **COLOURED,
    }
    return MODELS.build(settings).train()


def scan(num_points=200, num_views=3):
    generator = torch.Generator().manual_seed(0)
    pc_data = {
        'pos': torch.rand(num_points, 3, generator=generator) * 2 - 1,
        'rgb': torch.rand(num_points, 3, generator=generator) * 255,
        'name': 'kitchen',
    }
    images = torch.rand(num_views, 3, *IMAGE_SIZE, generator=generator)
    return pc_data, images, [(INTRINSICS, pose) for pose in poses(num_views)]


def test_labels_and_confidence(model):
    pc_data, images, cameras = scan()
    before = dict(pc_data)
    result = segment_scan(pc_data, images, cameras, model)
    assert pc_data.keys() == before.keys()
    assert result['name'] == 'kitchen'
    assert result['labels'].shape == (200,)
    assert result['labels'].dtype == torch.int64
    assert ((result['label_confidence'] >= 0.25) & (result['label_confidence'] <= 1)).all()
    agreement = result['view_agreement']
    assert ((agreement >= 0) & (agreement <= 1)).all()
    assert (agreement > 0).any()
    assert 'sources' not in result
    assert model.training  # as it was
    again = segment_scan(pc_data, list(images), cameras, model)
    assert again['labels'].equal(result['labels'])


def test_images_matter(model):
    pc_data, images, cameras = scan()
    one = segment_scan(pc_data, images, cameras, model)['label_confidence']
    other = segment_scan(pc_data, 1 - images, cameras, model)['label_confidence']
    assert (one - other).abs().max() > 1e-4


def test_opengl_poses(model):
    pc_data, images, cameras = scan()
    turned = [(k, opencv_from_opengl(pose)) for k, pose in cameras]
    straight = segment_scan(pc_data, images, cameras, model)
    opengl = segment_scan(pc_data, images, turned, model, convention='opengl')
    torch.testing.assert_close(straight['label_confidence'], opengl['label_confidence'])
    with pytest.raises(ValueError, match='convention'):
        segment_scan(pc_data, images, cameras, model, convention='opencl')


def test_depth_hides_points(model):
    """Depth maps that are empty everywhere leave no view; so do no images at all."""
    pc_data, images, cameras = scan()
    blind = segment_scan(pc_data, images, cameras, model, depth=torch.zeros(3, 30, 40))
    none = segment_scan(pc_data, [], [], model)
    torch.testing.assert_close(blind['label_confidence'], none['label_confidence'])
    assert torch.isfinite(blind['label_confidence']).all()
    seen = segment_scan(pc_data, images, cameras, model, occlusion='none')
    assert (seen['label_confidence'] - none['label_confidence']).abs().max() > 1e-4


def test_sources_of_some_points(model):
    pc_data, images, cameras = scan()
    rows = torch.tensor([5, 0, 17])
    result = segment_scan(pc_data, images, cameras, model, trace=rows)
    sources = result['sources']
    assert sources.reason.shape == (3, 3)
    intrinsics, extrinsics = (torch.stack(list(x)) for x in zip(*cameras))
    seen = trace_sources(
        pc_data['pos'],
        intrinsics,
        extrinsics,
        IMAGE_SIZE,
        visibility=Visibility(occlusion='zbuffer'),
    ).seen
    assert sources.seen.equal(seen[:, rows])
    assert result['view_agreement'][rows].gt(0).equal(sources.seen.any(0))
    distance = (extrinsics[:, None, :3, 3] - pc_data['pos'][rows]).norm(dim=-1)
    weight = torch.exp(-distance / 10) * sources.seen
    shares = weight / weight.sum(0).clamp(min=1e-9)
    torch.testing.assert_close(sources.weight, shares)


def test_views_that_are_not_read_have_no_weight(model):
    pc_data, images, cameras = scan()
    settings = {
        'type': 'MVPNet',
        'num_classes': 4,
        'image_net': IMAGES,
        'point_processor': POINTS,
        **COLOURED,
    }
    nearest = MODELS.build({**settings, 'max_views': 1})
    rows = torch.arange(200)
    every = segment_scan(pc_data, images, cameras, model, trace=rows)['sources']
    one = segment_scan(pc_data, images, cameras, nearest, trace=rows)['sources']
    several = every.seen.sum(0) > 1
    assert several.any()
    assert (one.seen.sum(0) == every.seen.sum(0).clamp(max=1)).all()
    assert (one.reason[every.seen & ~one.seen] == Reason.NO_WEIGHT).all()


def test_cameras_that_look_away(model):
    pc_data, images, cameras = scan()
    away = poses(3)
    away[:, :3, 3] += 100 * away[:, :3, 2]  # far past the points
    away = [(k, pose) for (k, _), pose in zip(cameras, away)]
    none = segment_scan(pc_data, [], [], model)
    result = segment_scan(pc_data, images, away, model)
    torch.testing.assert_close(result['label_confidence'], none['label_confidence'])


def test_empty_cloud(model):
    pc_data, images, cameras = scan(num_points=0)
    result = segment_scan(pc_data, images, cameras, model)
    assert result['labels'].shape == result['label_confidence'].shape == (0,)


def faults():
    pc_data, images, cameras = scan()
    singular = poses(3)
    singular[1, :3, 0] = 0
    flat = INTRINSICS.clone()
    flat[0, 0] = 0
    dirty = images.clone()
    dirty[2, 0, 5, 5] = torch.nan
    lost = pc_data['pos'].clone()
    lost[3] = torch.nan
    return [
        ({'rgb': pc_data['rgb']}, images, cameras, "no 'pos'"),
        ({'pos': pc_data['pos']}, images, cameras, "expected 'rgb'"),
        ({**pc_data, 'rgb': pc_data['rgb'][:5]}, images, cameras, "expected 'rgb'"),
        ({**pc_data, 'pos': pc_data['pos'][:, :2]}, images, cameras, r'\(N, 3\)'),
        ({**pc_data, 'pos': lost}, images, cameras, 'not all coordinates are finite'),
        (pc_data, images[:2], cameras, '2 images but 3 camera_params'),
        (pc_data, [images[0], images[1, :, 1:]], cameras[:2], 'of one size'),
        (pc_data, dirty, cameras, 'image 2 of 3'),
        (pc_data, images, [(INTRINSICS, pose) for pose in singular], 'singular: view .1.'),
        (pc_data, images, [(flat, pose) for pose in poses(3)], 'focal length of zero'),
    ]


@pytest.mark.parametrize('number', range(10))
def test_bad_input(model, number):
    pc_data, images, cameras, message = faults()[number]
    with pytest.raises(ValueError, match=message):
        segment_scan(pc_data, images, cameras, model)


def test_bad_options(model):
    pc_data, images, cameras = scan()
    with pytest.raises(ValueError, match='occlusion'):
        segment_scan(pc_data, images, cameras, model, occlusion='maybe')
    with pytest.raises(ValueError, match='depth: expected'):
        segment_scan(pc_data, images, cameras, model, depth=torch.zeros(2, 30, 40))
    for rows in (torch.tensor([200]), torch.tensor([-1]), torch.tensor([0.5])):
        with pytest.raises(ValueError, match='trace'):
            segment_scan(pc_data, images, cameras, model, trace=rows)
    with pytest.raises(ValueError, match='no views'):
        segment_scan(pc_data, [], [], model, trace=torch.tensor([0]))
