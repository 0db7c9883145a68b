from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from oneformer3d.data.class_tables import get_class_table
from oneformer3d.fields.asking.answers import write_observed
from oneformer3d.fields.asking.baseline import nearest_view_baseline, reproject
from oneformer3d.fields.asking.evaluate_text import evaluate_text
from oneformer3d.fields.asking.instances import instances_at_points
from oneformer3d.fields.asking.pictures import (
    draw_views,
    make_painters,
    relevancy_map,
    turntable_cameras,
    write_labelled_cloud,
    write_turntable,
)
from oneformer3d.fields.asking.query import (
    field_at_points,
    query_features_at_points,
    query_nerf_at_points,
)
from oneformer3d.fields.asking.segment import (
    segment_scan_with_field,
    world_from_cam,
    write_pseudo_labels,
)
from oneformer3d.fields.asking.text import TextQuery, query_lerf_with_text, relevancy
from oneformer3d.fields.fitting.fitted import FittedField
from oneformer3d.fields.fitting.loop import fit_field
from oneformer3d.fields.fitting.prior import read_prior
from oneformer3d.fields.fitting.surfaces import feature_colors_of, surface_points
from oneformer3d.fields.networks.heads import LanguageHead
from oneformer3d.fields.networks.scene_box import SceneBox
from oneformer3d.fields.rendering.rays import scene_normalisation
from oneformer3d.fields.scene.extent import observe
from oneformer3d.fields.scene.labelled_points import IGNORE, LabelledPoints
from oneformer3d.files.ply import read_ply
from tests.helpers.analytic_fields import KnownField
from tests.helpers.small_scenes import (
    COLORS,
    HALF,
    SIZE,
    K,
    box_scene,
    box_views,
    quick_settings,
    wall_points,
)

TEXT = torch.eye(4)


def which_wall(world):
    return (world / HALF).abs().argmax(-1)


def box_field(box=None, **heads):
    """The box room known exactly: solid beyond its walls, classes by the wall that is near."""
    known = {
        'semantics': lambda x: 8 * torch.eye(3)[which_wall(x)],
        'rgb': lambda x: COLORS[which_wall(x)],
        'features': lambda x: torch.eye(4)[which_wall(x)],
        'instances': lambda x: torch.eye(6)[2 * which_wall(x) + (side(x) > 0).long()],
        **heads,
    }
    return KnownField(lambda x: 200.0 * ((x / HALF).abs() >= 0.99).any(-1).to(x), known, box)


def side(world):
    return world.gather(-1, which_wall(world)[..., None])[..., 0]


@pytest.fixture(scope='module')
def known():
    """The exact field with what three of six views of the room observed."""
    scene = box_scene(6)
    return FittedField(
        field=box_field(scene_normalisation(bounds=torch.stack((-1.1 * HALF, 1.1 * HALF)))),
        settings=quick_settings(view_coarse_samples=48, view_fine_samples=16),
        recipe={},
        frames=scene.frames[:3],
        class_names=('x', 'y', 'z'),
        palette=np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8),
        things=(0, 1),
        observations=observe(scene, [0, 1, 2]),
    )


def test_relevancy_is_the_least_pairwise_softmax():
    def unit(cosine):  # a vector with this cosine to the first axis
        return torch.tensor([cosine, (1 - cosine**2) ** 0.5])

    feature = torch.tensor([[1.0, 0.0]])
    negatives = torch.stack([unit(c) for c in (0.25, 0.22, 0.24, 0.20)])
    found = relevancy(feature, unit(0.30)[None], negatives)
    assert found.item() == pytest.approx(0.6225, abs=1e-4)

    generator = torch.Generator().manual_seed(0)
    features, positives, negatives = (
        torch.randn(n, 7, generator=generator, dtype=torch.float64) for n in (20, 3, 5)
    )
    found = relevancy(features, positives, negatives, temperature=0.2)
    f, p, n = (x / x.norm(dim=-1, keepdim=True) for x in (features, positives, negatives))
    for row in range(20):
        for column in range(3):
            pairs = [
                torch.exp(f[row] @ p[column] / 0.2)
                / (torch.exp(f[row] @ p[column] / 0.2) + torch.exp(f[row] @ n[k] / 0.2))
                for k in range(5)
            ]
            assert found[row, column] == pytest.approx(float(min(pairs)), abs=1e-5)


def test_relevancy_of_nothing_and_of_bad_text():
    features = torch.tensor([[0.0, 0.0], [torch.nan, 1.0], [1.0, 0.0]])
    found = relevancy(features, torch.eye(2)[:1], torch.eye(2)[1:])
    assert found[:, 0].tolist() == pytest.approx([0.5, 0.0, 1 / (1 + np.exp(-10))], abs=1e-6)
    for arguments, message in (
        ((torch.eye(2), torch.zeros(0, 2)), 'negatives: expected K of 1 or more'),
        ((torch.eye(3), torch.eye(3)), r'positives: expected .* D=2, got \(3, 3\)'),
        ((torch.full((1, 2), torch.nan), torch.eye(2)), 'finite'),
        ((torch.eye(2), torch.eye(2), 0.0), 'temperature'),
    ):
        with pytest.raises(ValueError, match=message):
            relevancy(torch.eye(2), *arguments)


def test_points_of_the_world_are_labelled_where_some_view_observed_them(known):
    points, wall = wall_points(600)
    result = query_nerf_at_points(known, points)
    observed = result['observed']
    assert 0.3 < observed.float().mean() < 0.9
    assert (result['labels'][observed] == wall[observed]).all()
    assert (result['labels'][~observed] == IGNORE).all()
    assert (result['confidence'][~observed] == 0).all()
    assert (result['semantic_confidence'][~observed] == 0).all()
    assert result['density'].max() == pytest.approx(200, rel=1e-4)
    assert (result['confidence'][observed] > 0.99).all()
    middle = query_nerf_at_points(known, known.observations.camera.world_from_cam[:1, :3, 2] * 0.6)
    assert middle['observed'].all()
    assert middle['confidence'] == 0  # observed, and nothing is there
    assert set(query_nerf_at_points(known, points, return_confidence=False)) == {'labels'}
    everywhere = query_nerf_at_points(known.field, points)
    assert (everywhere['labels'] == wall).all()


def test_chunks_change_nothing_and_odd_points_have_an_answer(known):
    points, _ = wall_points(100)
    far = torch.tensor([[50.0, 0, 0], [torch.nan, 0, 0], [0, torch.inf, 0]])
    points = torch.cat((points, far))
    whole = query_nerf_at_points(known, points)
    for options in (dict(chunk_size=7), dict(byte_budget=20_000)):
        for name, values in query_nerf_at_points(known, points, **options).items():
            assert torch.equal(values, whole[name]), name
    assert (whole['labels'][-3:] == IGNORE).all()
    assert (whole['confidence'][-3:] == 0).all()
    assert len(query_nerf_at_points(known, points[:0])['labels']) == 0
    for bad in (points[:, :2], points.long()):
        with pytest.raises(ValueError, match='points: expected'):
            query_nerf_at_points(known, bad)
    with pytest.raises(ValueError, match='hold nothing'):
        query_nerf_at_points(known, points, chunk_size=0)


def test_one_similarity_serves_queries_and_views_alike():
    """The same room in two boxes: the same answers at the same world points."""
    points, _ = wall_points(50)
    small = box_field(scene_normalisation(bounds=torch.stack((-3 * HALF, 5 * HALF))))
    for name, values in query_nerf_at_points(box_field(SceneBox.identity()), points).items():
        assert torch.allclose(query_nerf_at_points(small, points)[name], values, rtol=1e-4), name


def test_text_finds_its_wall_and_abstains_elsewhere(known):
    points, wall = wall_points(300)
    result = query_lerf_with_text(known, points, TEXT[:2], negatives=TEXT[3:])
    observed = known.observations.observed(points)
    assert ((wall == 0) == (result['valid_mask'] & (result['labels'] == 0)))[observed].all()
    assert ((wall == 1) == (result['valid_mask'] & (result['labels'] == 1)))[observed].all()
    assert not result['valid_mask'][~observed].any()
    assert (result['relevancy_matrix'][~observed] == 0).all()
    expected = relevancy(torch.eye(4)[wall], TEXT[:2], TEXT[3:])
    assert torch.allclose(result['relevancy_matrix'][observed], expected[observed])
    named = query_lerf_with_text(
        known, points, ['x', 'y'], negatives=['nothing'],
        encode_text=lambda texts: TEXT[[{'x': 0, 'y': 1, 'nothing': 3}[t] for t in texts]],
    )  # fmt: skip
    assert torch.equal(named['relevancy_matrix'], result['relevancy_matrix'])
    with pytest.raises(ValueError, match='encoder of text'):
        query_lerf_with_text(known, points, ['x'])


def test_objects_are_found_by_their_names(known):
    """Walls as objects, three phrases: a field that knows them finds all, a blind one does not."""
    everywhere = replace(known, observations=None)  # all walls take part
    points, wall = wall_points(1500)
    instance = 2 * wall + (side(points) > 0)
    cloud = LabelledPoints(points, wall, instance)
    report = evaluate_text(everywhere, cloud, TEXT[:3], TEXT[3:])
    assert report['retrieval'] == report['objects'] == report['points_accuracy'] == 1
    assert report['num_objects'] == 6
    assert report['retrieval_chance'] == pytest.approx(1 / 3)
    wrong = evaluate_text(everywhere, cloud, TEXT[[1, 2, 0]], TEXT[3:])
    assert wrong['retrieval'] == wrong['objects'] == wrong['points_accuracy'] == 0
    assert wrong['objects_top3'] == 1
    assert evaluate_text(everywhere, LabelledPoints(points), TEXT[:3], TEXT[3:]) == {}


def test_features_are_handed_over_where_they_are_known(known):
    points, wall = wall_points(200)
    found = query_features_at_points(known, points)
    observed = found['observed']
    assert torch.equal(found['features'][observed], torch.eye(4)[wall][observed])
    assert (found['features'][~observed] == 0).all()
    assert (found['confidence'] > 0.9).equal(observed)
    with pytest.raises(ValueError, match='no head'):
        query_features_at_points(known, points, 'features_dino')


def test_the_best_patch_size_counts():
    field = box_field()

    def at_sizes(hidden, positions, sizes):
        for size in sizes:
            angle = hidden.new_tensor(2 * abs(size - 0.7))
            yield torch.stack((angle.cos(), angle.sin())).expand(len(hidden), 2)

    head = LanguageHead(4, 2)
    head.sample_sizes = at_sizes
    field.head_nets['language'] = head
    points, _ = wall_points(5)
    text = torch.eye(2)
    found = query_lerf_with_text(field, points, text[:1], negatives=text[1:], sizes=(0.3, 0.7, 1.1))
    best = query_lerf_with_text(field, points, text[:1], negatives=text[1:], sizes=(0.7,))
    worse = query_lerf_with_text(field, points, text[:1], negatives=text[1:], sizes=(0.3,))
    assert torch.equal(found['confidence'], best['confidence'])
    assert (worse['confidence'] < best['confidence']).all()


def test_pictures_of_text_search_the_patch_sizes_that_points_do(known):
    """A size that no single one of the crops has: 0.7 m speaks of the phrase, others do not."""
    camera = box_scene(1).camera[0]
    field = box_field()
    head = LanguageHead(4, 2)
    head.sample_sizes = lambda hidden, positions, sizes: (
        torch.eye(2)[int(abs(size - 0.7) > 0.01)].expand(len(hidden), 2) for size in sizes
    )
    field.head_nets['language'] = head
    spoken = replace(known, field=field)
    maps = {'depth': torch.ones(SIZE), 'accumulation': torch.ones(SIZE)}
    maps['accumulation'][:5] = 0.1
    text = TextQuery(('a', 'b'), torch.eye(2), torch.tensor([[0.6, 0.8]]))
    scores = relevancy_map(spoken, camera, maps, text)
    assert scores.shape == (*SIZE, 2)
    assert (scores[:5] == 0).all()
    assert (scores[5:] > 0.8).all()


def test_instances_are_clusters_within_a_class(known):
    points, wall = wall_points(800)
    result = instances_at_points(known, points)
    observed = result['observed']
    things = observed & (wall < 2)
    true = 2 * wall + (side(points) > 0)
    pairs = set(zip(true[things].tolist(), result['instances'][things].tolist()))
    large = [t for t in true[things].unique().tolist() if (true[things] == t).sum() >= 30]
    assert len(large) >= 2
    assert len({found for t, found in pairs if t in large}) == len(large)
    assert (result['instances'][~things] == -1).all()


def test_pictures_show_what_the_field_holds(known, tmp_path):
    scene = box_scene(6)
    files = draw_views(
        known,
        [scene.camera[1]],
        ['view'],
        tmp_path,
        TextQuery(('the long wall',), TEXT[:1], TEXT[3:]),
    )
    names = {path.name for path in files}
    assert names >= {'view.rgb.png', 'view.depth.png', 'view.semantics.png', 'view.features.png'}
    assert 'view.text-the-long-wall.png' in names
    rgb = np.asarray(Image.open(tmp_path / 'view.rgb.png')).astype(int)
    expected = (COLORS[scene.read(1).semantics.long()] * 255).numpy()
    assert (np.abs(rgb - expected).max(-1) < 12).mean() > 0.9
    classes = np.asarray(Image.open(tmp_path / 'view.semantics.png'))
    assert (known.palette[scene.read(1).semantics] == classes).all(-1).mean() > 0.9
    assert 'semantics' not in make_painters(replace(known, palette=None))
    first, second = feature_colors_of(known), feature_colors_of(known)
    assert np.array_equal(first.axes, second.axes)
    write_turntable(tmp_path / 'turn.gif', known, num_frames=3, size=(12, 16))
    with Image.open(tmp_path / 'turn.gif') as turn:
        assert (turn.n_frames, turn.size) == (3, (16, 12))
    with pytest.raises(ValueError, match='no picture'):
        write_turntable(tmp_path / 'turn.gif', known, way='heat')
    points = surface_points(known)
    assert ((points / HALF).abs().amax(-1) > 0.9).all()
    thinned = surface_points(known, 0.1)
    cells = (thinned / 0.1).floor()
    assert len(cells.unique(dim=0)) == len(thinned) < len(points)
    assert torch.cdist(points, thinned).amin(-1).max() < 0.1 * 3**0.5
    write_labelled_cloud(
        tmp_path / 'c.ply', points, query_nerf_at_points(known, points), known.palette
    )
    xyz, colors, columns = read_ply(tmp_path / 'c.ply')
    assert np.allclose(xyz, points.numpy())
    assert columns['labels'].max() <= 2
    assert colors is not None


def test_a_turn_stays_at_its_position_and_goes_once_around(known):
    cameras = turntable_cameras(known, 8)
    centres = torch.stack([camera.world_from_cam[:3, 3] for camera in cameras])
    assert (centres - centres[0]).abs().max() < 1e-6
    axes = torch.stack([camera.world_from_cam[:3, 2] for camera in cameras])
    up = -known.observations.camera.world_from_cam[:, :3, 1].mean(0)
    assert torch.linalg.cross(axes.mean(0), up).abs().max() < 1e-5  # level directions cancel
    for camera in cameras:
        assert torch.linalg.det(camera.world_from_cam[:3, :3]) == pytest.approx(1, abs=1e-5)
        assert camera.world_from_cam[:3, 1] @ up < 0  # y is down


def test_labels_are_written_for_the_segmentor(known, tmp_path):
    table = get_class_table('synthetic')
    with pytest.raises(ValueError, match='has others'):
        write_pseudo_labels(known, wall_points(5)[0], tmp_path, 'room', table)
    names = replace_names(known, table)
    points, wall = wall_points(400)
    shares = write_pseudo_labels(names, points, tmp_path, 'room', table)
    raw = np.fromfile(tmp_path / 'semantic_mask' / 'room.bin', dtype=np.int64)
    instance = np.fromfile(tmp_path / 'instance_mask' / 'room.bin', dtype=np.int64)
    observed = known.observations.observed(points).numpy()
    assert (raw[~observed] == 0).all()
    assert np.array_equal(raw[observed], wall.numpy()[observed] + 1)
    assert (instance[raw == 0] == 0).all()
    assert shares['labelled'] == pytest.approx(observed.mean(), abs=1e-6)


def test_priors_are_read_from_files(tmp_path):
    points = np.random.default_rng(0).random((4, 3)).astype(np.float32)
    logits = np.array([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [0, 0, 0]])
    np.savez(tmp_path / 'logits.npz', points=points, logits=logits)
    prior = read_prior(tmp_path / 'logits.npz', 3)
    assert torch.allclose(prior.probabilities, torch.from_numpy(logits).softmax(-1).float())
    np.savez(tmp_path / 'labels.npz', points=points, semantic=np.array([0, 2, 255, 1]))
    prior = read_prior(tmp_path / 'labels.npz', 3, certainty=0.8)
    assert torch.allclose(prior.probabilities.sum(-1), torch.ones(3))
    assert prior.probabilities.argmax(-1).tolist() == [0, 2, 1]
    assert prior.probabilities.max() == pytest.approx(0.8)
    with pytest.raises(ValueError, match=r'logits: expected .* C=2, got \(4, 3\)'):
        read_prior(tmp_path / 'logits.npz', 2)
    with pytest.raises(ValueError, match='class 2 of 2 classes'):
        read_prior(tmp_path / 'labels.npz', 2)
    with pytest.raises(FileNotFoundError, match='no such file'):
        read_prior(tmp_path / 'absent.npz', 3)


def test_a_scan_is_labelled_by_a_given_field_and_left_as_it_was(known):
    points, wall = wall_points(200)
    scan = {'pos': points, 'feat': torch.ones(200)}
    result = segment_scan_with_field(scan, [], [], known)
    assert set(scan) == {'pos', 'feat'}
    observed = known.observations.observed(points)
    assert (result['labels'] == torch.where(observed, wall, IGNORE)).all()
    assert (result['label_confidence'][observed] > 0.9).all()
    assert (result['label_confidence'][~observed] == 0).all()


def test_a_scan_is_labelled_from_its_images_in_any_convention():
    views = box_views(4)
    keys = ('images', 'semantics', 'depth')
    images = [dict(image=i, semantics=s, depth=d) for i, s, d in zip(*(views[key] for key in keys))]
    points, _ = wall_points(64)
    settings = quick_settings(batch_rays=64, holdout_every=0, labels='none')
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    poses = views['world_from_cam']
    given = {
        'world_from_cam': poses,
        'cam_from_world': [torch.linalg.inv(pose) for pose in poses],
        'opengl': [pose @ flip for pose in poses],
    }
    found = {}
    for convention, matrices in given.items():
        for matrix, pose in zip(matrices, poses):
            assert torch.allclose(world_from_cam(matrix, convention), pose, atol=1e-6)
        cameras = [(K, matrix) for matrix in matrices]
        found[convention] = segment_scan_with_field(
            {'pos': points}, images, cameras, None, 2, convention, settings=settings
        )
    expected = found['world_from_cam']
    assert torch.equal(found['opengl']['labels'], expected['labels'])
    assert (found['cam_from_world']['labels'] == expected['labels']).float().mean() > 0.9
    cameras = [(K, pose) for pose in poses]
    plain = [view['image'] for view in images]
    for arguments, message in (
        (({'pos': points}, images[:2], cameras), '2 images, but 4 cameras'),
        (({'pos': points}, images, cameras, None, 2, 'left'), 'convention'),
        (({'pos': points}, [*plain[:3], images[3]], cameras), 'image 3'),
    ):
        with pytest.raises(ValueError, match=message):
            segment_scan_with_field(*arguments)


def test_the_nearest_view_moves_by_its_depth():
    """Walls of one colour: what is moved over shows the right colour and depth."""
    scene = box_scene(12)
    content = scene.read(1)
    rgb, depth, found = reproject(scene, 0, scene.view_camera(1, content))
    assert found.float().mean() > 0.3
    assert (depth - content.depth).abs()[found].median() < 0.03
    assert (rgb - content.rgb.float() / 255).abs().amax(-1)[found].median() < 0.03
    report = nearest_view_baseline(scene, [0, 2, 4], [1, 3])
    assert report['psnr_covered'] > report['psnr'] + 3
    assert report['depth_error_median'] < 0.1


def test_heads_that_are_not_there_are_named(known):
    with pytest.raises(ValueError, match='no head'):
        field_at_points(known.field, torch.zeros(1, 3), ('smell',))
    bare = KnownField(lambda x: x[..., 0] * 0, {})
    with pytest.raises(ValueError, match='without labels'):
        query_nerf_at_points(bare, torch.zeros(1, 3))
    with pytest.raises(ValueError, match='neither language nor features'):
        query_lerf_with_text(bare, torch.zeros(1, 3), TEXT[:1], negatives=TEXT[3:])


def replace_names(fitted, table):
    """The field with a table's classes, the three walls being its first three."""

    def wide(hidden):
        return 12 * torch.eye(table.num_classes)[which_wall(hidden)]

    return replace(
        fitted,
        field=box_field(fitted.field.scene_box, semantics=wide),
        class_names=table.classes,
        things=table.instance_classes,
    )


def test_a_field_without_classes_writes_its_points_too(tmp_path):
    scene = box_scene(4, semantics=None)
    fitted = fit_field(scene, quick_settings(steps=2))
    points = torch.cat((surface_points(fitted)[:20], torch.full((3, 3), 50.0)))
    share = write_observed(tmp_path, fitted, points)
    xyz, colors, columns = read_ply(tmp_path / 'points.ply')
    assert len(xyz) == len(colors) == 23
    assert not columns['observed'][20:].any()
    assert not columns['confidence'][20:].any()
    assert np.isfinite(columns['confidence']).all()
    assert share == pytest.approx(columns['observed'].mean())
    assert write_observed(tmp_path, fitted, points[:0]) == 0
