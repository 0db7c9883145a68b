import os
import signal
from dataclasses import replace

import pytest
import torch

from oneformer3d.fields.asking.baseline import nearest_view_baseline
from oneformer3d.fields.asking.evaluate import evaluate_points, evaluate_views
from oneformer3d.fields.asking.instances import instances_at_points
from oneformer3d.fields.asking.query import query_features_at_points, query_nerf_at_points
from oneformer3d.fields.asking.text import text_head
from oneformer3d.fields.fitting.field_file import load_field
from oneformer3d.fields.fitting.fitted import add_feature_head
from oneformer3d.fields.fitting.loop import fit_field
from oneformer3d.fields.fitting.prior import PointPrior
from oneformer3d.fields.fitting.recipe import build_field, make_recipe
from oneformer3d.fields.fitting.semantic_nerf import fit_semantic_nerf
from oneformer3d.fields.fitting.settings import FitSettings, make_fit_settings
from oneformer3d.fields.fitting.step import rate_at
from oneformer3d.fields.networks.mlp_field import SemanticNeRF
from oneformer3d.fields.scene.extent import observe
from oneformer3d.fields.scene.labelled_points import LabelledPoints
from oneformer3d.lifting import resize_intrinsics
from tests.fields.scene.test_scene import STAMP
from tests.helpers.small_scenes import (
    SIZE,
    SMALL_FEATURES,
    K,
    box_scene,
    box_views,
    quick_settings,
    wall_points,
)

MLP = dict(field='mlp', field_options=dict(hidden_dim=16))
MLP_FEATURES = dict(field='mlp', field_options=dict(hidden_dim=16, features=SMALL_FEATURES))


@pytest.fixture(scope='module')
def fitted_box():
    """The box room fitted for a few seconds, and the scene."""
    torch.set_num_threads(1)
    scene = box_scene(16)
    settings = quick_settings(
        steps=100,
        method='feature_field',
        measure_every=50,
        surface_pixels=512,
        loss_weights=dict(features=0.1, empty=0.1, distortion=0.1),
    )
    return fit_field(scene, settings), scene


def test_a_room_is_rendered_from_new_positions_and_its_points_are_labelled(fitted_box):
    fitted, scene = fitted_box
    _, held_out = scene.split(4)
    report = evaluate_views(fitted, scene, held_out)
    assert report['psnr'] > 22
    assert report['observed'] > 0.95  # the other views look everywhere
    assert abs(report['psnr_observed'] - report['psnr']) < 1
    assert report['depth_error'] < 0.06
    assert report['miou'] > 85
    assert report['feature_cosine'] > 0.9
    points, wall = wall_points(2000)
    at_points = evaluate_points(fitted, LabelledPoints(points, wall))
    assert at_points['miou'] > 75
    assert 0.5 < at_points['observed'] < 0.8  # neither floor nor ceiling below the cameras
    assert [row['step'] for row in fitted.report['history']] == [50, 100]
    assert report['psnr'] > nearest_view_baseline(scene, scene.split(4)[0], held_out)['psnr']


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path):
    scene, settings = box_scene(5), quick_settings(steps=6)
    whole = fit_field(scene, settings, tmp_path / 'whole')

    def interrupt(step, values):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit, match='143'):
        fit_field(scene, settings, tmp_path / 'parts', on_step=interrupt)
    stopped, _ = load_field(tmp_path / 'parts')
    assert stopped.step == 3
    steps = []
    resumed = fit_field(
        scene, settings, tmp_path / 'parts', on_step=lambda step, values: steps.append(step)
    )
    assert steps == [4, 5, 6]
    for name, value in whole.field.state_dict().items():
        assert torch.equal(value, resumed.field.state_dict()[name]), name
    again, training = load_field(tmp_path / 'parts')
    assert training['optimizer']
    points, _ = wall_points(50)
    expected = query_nerf_at_points(whole, points)
    for name, value in query_nerf_at_points(again, points).items():
        assert torch.equal(value, expected[name]), name
    assert fit_field(scene, settings, tmp_path / 'parts').step == 6  # nothing left to do


def test_scenes_without_depth_learn_where_to_sample_and_resume_exactly(tmp_path):
    scene = box_scene(5, depth=None)
    settings = quick_settings(steps=6, proposal_samples=[8, 6], proposal_final=4)
    terms = set()
    whole = fit_field(scene, settings, tmp_path / 'whole', on_step=lambda _, v: terms.update(v))
    assert {'interlevel', 'distortion'} <= terms
    assert int(whole.proposals.steps_done) == 6

    def interrupt(step, values):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit_field(scene, settings, tmp_path / 'parts', on_step=interrupt)
    resumed = fit_field(scene, settings, tmp_path / 'parts')
    reloaded, _ = load_field(tmp_path / 'whole')
    for other in (resumed, reloaded):
        for name, value in whole.proposals.state_dict().items():
            assert torch.equal(value, other.proposals.state_dict()[name]), name
        for name, value in whole.field.state_dict().items():
            assert torch.equal(value, other.field.state_dict()[name]), name

    assert fit_field(box_scene(4), quick_settings(steps=1)).proposals is None
    always = replace(settings, steps=1, proposals='always')
    assert fit_field(box_scene(4), always).proposals is not None
    never = replace(settings, steps=1, proposals='never')
    assert fit_field(scene, never).proposals is None


@pytest.mark.parametrize(
    ('name', 'changes'),
    [
        ('features', {}),
        ('language', {'method': 'feature_field'}),
        ('instances', {}),
        ('slots', {'method': 'panoptic'}),
        ('slow_fast', {'method': 'panoptic'}),
        ('instances', {'method': 'panoptic', 'instance_loss': 'slots'}),
        ('interlevel', {'proposals': 'never'}),
        ('surface', {'surface_pixels': 0}),
    ],
)
def test_weights_that_would_do_nothing_are_named(name, changes):
    with pytest.raises(ValueError, match=rf'loss_weights.{name} = 0.5 would do nothing: needs'):
        FitSettings(**changes, loss_weights={name: 0.5})
    FitSettings(**changes, loss_weights={name: 0.0})
    with pytest.raises(ValueError, match='instance_loss: expected one of'):
        FitSettings(method='panoptic', instance_loss='fast')


@pytest.mark.parametrize('kind', [{}, MLP], ids=['hash', 'mlp'])
@pytest.mark.parametrize('method', ['semantic_nerf', 'panoptic', 'feature_field', 'lerf'])
def test_every_method_fits_on_either_field_and_comes_back_from_its_file(method, kind, tmp_path):
    scene, terms = box_scene(4), {}
    if method == 'lerf':
        scene = with_made_up_language(scene)
    options = dict(kind)
    if method == 'lerf' and not kind:
        options['field_options'] = dict(
            num_levels=3, log2_hashmap_size=12, language_grids=((4, 8),)
        )
    if method == 'feature_field' and kind:
        options = MLP_FEATURES
    fitted = fit_field(
        scene,
        quick_settings(steps=2, method=method, batch_rays=64, **options),
        tmp_path,
        on_step=lambda step, values: terms.update(values),
    )
    term = {'panoptic': 'instances', 'feature_field': 'features', 'lerf': 'language'}
    assert {'rgb', 'semantics', 'depth', 'psnr'} <= set(terms)
    assert method not in term or term[method] in terms
    assert not {'slots', 'slow_fast'} & set(terms)
    again, _ = load_field(tmp_path)
    for name, value in fitted.field.state_dict().items():
        assert torch.equal(value, again.field.state_dict()[name]), name
    assert again.class_names == fitted.class_names
    assert again.settings == fitted.settings


def test_a_head_added_later_learns_and_leaves_the_rest_alone(fitted_box):
    fitted, scene = fitted_box
    before = {name: value.clone() for name, value in fitted.field.state_dict().items()}
    more = add_feature_head(fitted, 'features_more', 4, **SMALL_FEATURES)
    settings = quick_settings(
        steps=25, method='feature_field', batch_rays=128, loss_weights=dict(features=1.0)
    )
    errors = []
    fit_field(
        scene,
        settings,
        start=more,
        on_step=lambda step, values: errors.append(values['features_more']),
    )
    assert errors[-1] < 0.6 * errors[0]
    for name, value in before.items():
        assert torch.equal(value, more.field.state_dict()[name]), name
    assert 'features_more' not in fitted.field.head_nets


@pytest.mark.parametrize('loss', ['contrastive', 'slow_fast', 'slots'])
def test_instances_are_learnt_each_way(loss, tmp_path):
    """The four upright walls of the box are one class: its vectors or slots tell them apart."""
    upright = [(wall == 2).long() for wall in box_views(12)['semantics']]
    scene = replace(box_scene(12, semantics=upright), class_names=('wall', 'flat'), things=(0,))
    terms = {'contrastive': 'instances', 'slow_fast': 'slow_fast', 'slots': 'slots'}
    weights = {'empty': 0.1, terms[loss]: 0.1 if loss == 'contrastive' else 1.0}
    settings = quick_settings(
        steps=100, method='panoptic', instance_loss=loss, loss_weights=weights
    )
    values = []
    fitted = fit_field(scene, settings, tmp_path, on_step=lambda step, v: values.append(v))
    assert set(terms.values()) & set(values[-1]) == {terms[loss]}
    assert values[-1][terms[loss]] < values[0][terms[loss]]

    points, wall = wall_points(800)
    true = 2 * wall + (points[torch.arange(800), wall] > 0).long()
    found = instances_at_points(fitted, points)
    rows = found['observed'] & (wall < 2) & (found['labels'] == 0)
    assert rows.sum() > 200
    best = sum(int(torch.bincount(found['instances'][rows & (true == k)]).max()) for k in range(4))
    assert best > 0.8 * int(rows.sum())  # each wall is mostly one instance
    assert len(found['instances'][rows].unique()) >= 4  # and not all walls the same

    again, _ = load_field(tmp_path)
    assert torch.equal(instances_at_points(again, points)['instances'], found['instances'])


def test_the_slow_copy_follows_and_is_not_trained():
    settings = quick_settings(
        steps=1, batch_rays=64, method='panoptic', instance_loss='slow_fast', seed=5
    )
    heads = fit_field(box_scene(4), settings).field.head_nets
    assert not any(p.requires_grad for p in heads['instances_slow'].parameters())
    begin = _new_field(box_scene(4), settings)['instances']
    for fast, slow, first in zip(
        *(net.parameters() for net in (heads['instances'], heads['instances_slow'], begin)),
        strict=True,
    ):
        assert not torch.equal(fast, first)
        torch.testing.assert_close(slow, 0.9 * first + 0.1 * fast)


def _new_field(scene, settings):
    """Heads of the field that a fit begins with."""
    recipe = make_recipe(settings, len(scene.class_names))
    torch.manual_seed(settings.seed)
    return build_field(recipe).head_nets


@pytest.mark.parametrize('field', ['hash', 'mlp'])
def test_features_regularise_what_language_reads(field, tmp_path):
    """The features alone move the grids, or the trunk, that the head of language reads."""
    scene = with_made_up_language(box_scene(6))
    grids = dict(num_levels=3, log2_hashmap_size=12, language_grids=((4, 8),))
    options = grids if field == 'hash' else dict(hidden_dim=16)
    settings = quick_settings(
        steps=30, method='lerf', field=field, batch_rays=128, field_options=options,
        loss_weights=dict(language=0.0, features=1.0),
    )  # fmt: skip
    values = []
    fitted = fit_field(scene, settings, tmp_path, on_step=lambda step, v: values.append(v))
    assert values[-1]['features'] < 0.8 * values[0]['features']
    assert 'language' not in values[-1]

    language = fitted.field.head_nets['language']
    if field == 'hash':
        first = fit_field(scene, replace(settings, steps=1)).field.head_nets['language']
        moved = (language.grids[0].table - first.grids[0].table).abs().max()
        assert moved > 1e-3
    assert fitted.field.head_nets['features']._language[0] is language

    again, _ = load_field(tmp_path)
    points, _ = wall_points(100)
    mine, theirs = (query_features_at_points(f, points)['features'] for f in (fitted, again))
    assert torch.equal(mine, theirs)
    assert text_head(again) == 'language'


def two_stores(num_views=12):
    """The box room with features of two types: walls, and in five channels the sides of walls."""
    views = box_views(num_views)
    sides = [torch.nn.functional.one_hot(ids % 2, 5).float() for ids in views['instances']]
    return box_scene(num_views, features={'CLIP': views['features'], 'DINO': sides})


@pytest.mark.parametrize('kind', [{}, MLP_FEATURES], ids=['hash', 'mlp'])
def test_several_types_of_features_learn_from_their_own_stores(kind, tmp_path):
    scene, errors = two_stores(), []
    settings = quick_settings(
        steps=70, method='feature_field', loss_weights=dict(features=1.0), **kind
    )
    fitted = fit_field(
        scene, settings, tmp_path, on_step=lambda step, values: errors.append(values)
    )
    heads = fitted.field.head_nets
    assert (heads['features_clip'].output_dim, heads['features_dino'].output_dim) == (4, 5)
    assert heads['features_dino'].feature_type == 'DINO'
    assert 'features' not in errors[-1]
    for name in ('features_clip', 'features_dino'):
        assert errors[-1][name] < 0.5 * errors[0][name], name
    report = evaluate_views(fitted, scene, scene.split(4)[1])
    assert report['feature_cosine_clip'] > 0.8
    assert report['feature_cosine_dino'] > 0.8

    # what is read back has both, and each says what it is
    again, _ = load_field(tmp_path)
    points, wall = wall_points(400)
    for name in ('features_clip', 'features_dino'):
        mine, theirs = (query_features_at_points(f, points, name) for f in (fitted, again))
        assert torch.equal(mine['features'], theirs['features'])
    found = query_features_at_points(fitted, points, 'features_clip')
    right = found['features'].argmax(-1) == wall
    assert right[found['observed']].float().mean() > 0.9
    assert text_head(fitted) == 'features_clip'


def test_a_store_of_another_encoder_ends_a_fit_that_goes_on(tmp_path):
    scene = replace(box_scene(4), stamps={'CLIP': STAMP})
    settings = quick_settings(steps=2, method='feature_field')
    fit_field(scene, settings, tmp_path)
    other = replace(scene, stamps={'CLIP': replace(STAMP, weights_digest='d2')})
    with pytest.raises(ValueError, match=r"CLIP features of .*'d1'.*, now .*'d2'"):
        fit_field(other, settings, tmp_path)


def test_files_of_features_without_a_type_are_read_as_clips(tmp_path):
    scene = replace(box_scene(4), stamps={'CLIP': STAMP})
    fitted = fit_field(scene, quick_settings(steps=1, method='feature_field'), tmp_path)
    file = torch.load(tmp_path / 'field.pth')
    file['stamp'] = file.pop('stamps')['CLIP']
    file['recipe']['feature_dim'] = file['recipe'].pop('features')['CLIP']
    torch.save(file, tmp_path / 'old.pth')
    again, _ = load_field(tmp_path / 'old.pth')
    assert again.stamps == fitted.stamps == {'CLIP': STAMP}
    assert again.recipe['features'] == {'CLIP': 4}


def test_classes_of_points_alone_teach_a_field(fitted_box):
    """A segmentor's opinion of some points, no label image: the field tells all walls apart."""
    scene = box_scene(8, semantics=None, features=None, instances=None)
    scene = replace(scene, class_names=('x', 'y', 'z'))
    points, wall = wall_points(3000)
    prior = PointPrior(points, torch.nn.functional.one_hot(wall, 3).float())
    settings = quick_settings(steps=40, loss_weights=dict(prior=0.5))
    fitted = fit_field(scene, settings, prior=prior)
    points, truth = wall_points(1000, seed=1)
    found = query_nerf_at_points(fitted, points)
    correct = found['labels'] == truth
    assert correct[found['observed']].float().mean() > 0.9


def test_a_given_model_learns_from_a_list_of_views():
    views = box_views(6)
    items = [
        dict(image=i, semantics=s, intrinsics=K, extrinsics=p, depth=d)
        for i, s, p, d in zip(
            views['images'], views['semantics'], views['world_from_cam'], views['depth']
        )
    ]
    model, losses = SemanticNeRF(6, 2, 32, num_classes=3), []
    settings = FitSettings(
        field='mlp', steps=150, batch_rays=256, learning_rate=5e-3, final_rate=0.1,
        holdout_every=0, guided=False, surface_pixels=0,
    )  # fmt: skip
    fitted = fit_semantic_nerf(
        model, items, settings, on_step=lambda step, values: losses.append(values['loss'])
    )
    assert fitted.field is model
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert not torch.equal(model.unit_from_world, torch.eye(4))


def test_views_beyond_memory_are_fitted_too():
    settings = quick_settings(steps=3, pool_bytes=1)
    assert fit_field(box_scene(5), settings).step == 3


def test_learning_rate_rises_and_falls():
    settings = FitSettings(steps=101, warmup_steps=10, final_rate=0.01)
    rates = [rate_at(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[50] == pytest.approx(0.1)
    assert rates[100] == pytest.approx(0.01)


def test_settings_come_from_yaml_and_overrides(tmp_path):
    path = tmp_path / 'settings.yaml'
    path.write_text('steps: 7\nlearning_rate: 1e-3\nloss_weights: {rgb: 2}\n')
    settings = make_fit_settings(path, {'seed': 3, 'loss_weights': {'depth': 1.0}})
    assert (settings.steps, settings.learning_rate, settings.seed) == (7, 1e-3, 3)
    assert settings.weights['rgb'] == 2
    assert settings.weights['depth'] == 1
    for text, message in (
        ('stepz: 3', 'unknown settings stepz'),
        ('steps: many', 'steps should be int'),
        ('steps: 0', 'steps: expected 1 or more'),
        ('method: nerf', 'method: expected one of'),
        ('loss_weights: {colour: 1}', r"unknown \['colour'\]"),
        ('near: 3\nfar: 2', 'near < far'),
        ('!!python/object/apply:os.system [ls]', 'not readable as YAML'),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            make_fit_settings(path)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    scene, settings = box_scene(4), quick_settings(steps=2)
    fit_field(scene, settings, tmp_path)
    with pytest.raises(ValueError, match='seed was 0, now 5'):
        fit_field(scene, replace(settings, seed=5), tmp_path)
    with pytest.raises(ValueError, match='scene box'):
        fit_field(box_scene(6), settings, tmp_path)
    assert fit_field(scene, replace(settings, seed=5), tmp_path, resume=False).settings.seed == 5
    (tmp_path / 'field.pth').write_bytes(b'no checkpoint')
    with pytest.raises(ValueError, match=r'field.pth: not loaded, for it is damaged'):
        load_field(tmp_path)
    torch.save({'format': 'something'}, tmp_path / 'field.pth')
    with pytest.raises(ValueError, match='not the file of a neural field'):
        load_field(tmp_path)
    with pytest.raises(FileNotFoundError, match='no such field'):
        load_field(tmp_path / 'absent')


@pytest.mark.parametrize(
    ('changes', 'settings', 'message'),
    [
        (dict(semantics=None), dict(method='panoptic'), 'panoptic needs labels'),
        (dict(features=None), dict(method='feature_field'), 'needs features'),
        ({}, dict(method='lerf'), 'needs language'),
        ({}, dict(field_options=dict(depth=3)), 'field_options'),
    ],
)
def test_a_scene_without_what_the_method_learns_from_is_refused(changes, settings, message):
    with pytest.raises(ValueError, match=message):
        fit_field(box_scene(4, **changes), quick_settings(**settings))


def test_one_image_needs_depth():
    with pytest.raises(ValueError, match='one image without depth'):
        fit_field(box_scene(1, depth=None), quick_settings())
    assert fit_field(box_scene(1), quick_settings(steps=1)).held_out == ()


def test_missing_depth_and_no_depth_are_fitted():
    views = box_views(4)
    views['depth'][1] = torch.zeros(SIZE)
    views['depth'][2] = torch.full(SIZE, torch.nan)
    fit_field(box_scene(4, depth=views['depth']), quick_settings(steps=2))
    fitted = fit_field(box_scene(4, depth=None), quick_settings(steps=2, far=3.0))
    assert fitted.occupancy is None
    assert (fitted.observations.depth > 0).all()


def test_images_of_mixed_sizes_are_fitted():
    views = box_views(4)
    small = (SIZE[0] // 2, SIZE[1] // 2)
    views['images'][1] = views['images'][1][::2, ::2]
    views['depth'][1] = views['depth'][1][::2, ::2]
    intrinsics = [K, resize_intrinsics(K, SIZE, small), K, K]
    scene = box_scene(
        4,
        images=views['images'],
        depth=views['depth'],
        intrinsics=intrinsics,
        **dict.fromkeys(('semantics', 'features', 'instances')),
    )
    fitted = fit_field(scene, quick_settings(steps=2))
    assert (fitted.observations.depth > 0).all()
    assert observe(scene, [0, 1], max_side=20).depth.shape == (2, 15, 20)


def test_a_loss_that_is_not_finite_ends_the_fit_in_one_line():
    features = [torch.full((2, 2, 4), torch.nan)] * 4
    scene = box_scene(4, features=features)
    with pytest.raises(ValueError, match=r'box: the loss is not finite at step 0: .*features nan'):
        fit_field(scene, quick_settings(method='feature_field'))


def test_mixed_precision_trains():
    fitted = fit_field(box_scene(4), quick_settings(steps=3, amp=True))
    assert all(torch.isfinite(value).all() for value in fitted.field.state_dict().values())


def with_made_up_language(scene):
    """The scene with two scales of crop embeddings that are the walls' one-hot vectors."""

    def read(view):
        content = scene.read(view)
        walls = content.features['CLIP']
        return replace(content, language=(walls, walls[::2, ::2]))

    return replace(scene, read=read, language_scales=(0.2, 0.5))
