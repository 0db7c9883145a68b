"""The whole step on a generated room whose right answer is known from its colours."""

from dataclasses import replace

import numpy as np
import pytest

from oneformer3d.data.fuse_rgbd import VoxelCloud
from oneformer3d.inference.inferencer import OneFormer3DInferencer
from oneformer3d.streaming.frames import StreamFrame
from oneformer3d.streaming.local_model import LocalModel
from oneformer3d.streaming.segmentor import StreamingSegmentor
from oneformer3d.structures.segmentation import Segmentation
from tests.helpers.color_segmentor import write_checkpoint, write_config
from tests.helpers.stream_rooms import objects_of, room_frames, write_color_model

UP = np.array([0.0, 0.0, 1.0])


@pytest.fixture(scope='module')
def inferencer(tmp_path_factory) -> OneFormer3DInferencer:
    return OneFormer3DInferencer(*write_color_model(tmp_path_factory.mktemp('model')), 'cpu')


@pytest.fixture(scope='module')
def frames() -> list[StreamFrame]:
    return room_frames()


@pytest.fixture
def segmentor(inferencer) -> StreamingSegmentor:
    return StreamingSegmentor(inferencer, up=UP)


@pytest.fixture(scope='module')
def finished(inferencer, frames) -> StreamingSegmentor:
    """All frames taken in order."""
    segmentor = StreamingSegmentor(inferencer, up=UP)
    for frame in frames:
        segmentor.step(frame)
    return segmentor


class WithoutFeatures(LocalModel):
    """As a network whose features overflow."""

    def __call__(self, points, superpoints):
        found = super().__call__(points, superpoints)
        return replace(found, features=np.full_like(found.features, np.nan))


def truth_of(segmentor: StreamingSegmentor) -> tuple[np.ndarray, np.ndarray]:
    """Track and true object of every point of the map."""
    _, track = segmentor.track_voxels()
    return track, objects_of(segmentor.surface.points())


def test_every_object_is_one_track_and_nothing_else_is(finished):
    track, thing = truth_of(finished)
    seen = [k for k in np.unique(thing[thing > 0]) if (thing == k).sum() >= 40]
    assert len(seen) >= 4

    owners = []
    for k in seen:
        ids, counts = np.unique(track[thing == k], return_counts=True)
        assert counts.max() >= 0.8 * counts.sum(), f'object {k}: {ids} {counts}'
        owners.append(int(ids[counts.argmax()]))
    assert min(owners) >= 0
    assert len(set(owners)) == len(owners)
    confirmed = {t.id for t in finished.merge.tracks() if t.state != 'tentative'}
    assert confirmed <= set(owners)


def test_a_static_room_has_nothing_moved_and_nothing_split(finished):
    kinds = {event.kind for event in finished.merge.events}
    assert not kinds & {'moved', 'split', 'revived'}


def test_points_of_a_result_are_those_of_the_frame(segmentor, frames):
    frame = frames[2]
    result = segmentor.step(frame)
    cam = (result.points[:, :3] - frame.world_from_cam[:3, 3]) @ frame.world_from_cam[:3, :3]
    pixel = cam @ frame.intrinsics.T
    u, v = np.rint(pixel[:, :2] / pixel[:, 2:]).astype(int).T
    np.testing.assert_allclose(frame.depth[v, u], cam[:, 2], atol=1e-4)
    np.testing.assert_array_equal(frame.color[v, u], result.points[:, 3:])
    for track in result.ids:
        assert len(np.unique(objects_of(result.points)[result.tracks == track])) == 1


def test_the_end_is_the_offline_model_on_the_map(finished, inferencer):
    at_end = finished.finalize()
    offline = inferencer(finished.scan())
    np.testing.assert_array_equal(at_end.points, offline.points)
    np.testing.assert_array_equal(at_end.semantic, offline.semantic)
    np.testing.assert_array_equal(at_end.panoptic, offline.panoptic)
    assert [i.score for i in at_end.instances] == [i.score for i in offline.instances]


def test_the_end_is_infer_on_the_fused_frames(tmp_path, frames):
    """As ``infer`` on a folder: fused to 2 cm, single pixels left out, instances joined."""
    config, weights = write_color_model(tmp_path)
    joined = OneFormer3DInferencer(config, weights, 'cpu', voxel_size=0.05, instances='joined')
    segmentor, cloud = StreamingSegmentor(joined, up=UP), VoxelCloud(0.02)
    for frame in frames[:4]:
        cloud.add(segmentor.step(frame).points)
    fused = cloud.mean_points(min_count=2)
    points = segmentor.scan().points
    order, of_fused = np.lexsort(points[:, :3].T), np.lexsort(fused[:, :3].T)
    np.testing.assert_allclose(points[order], fused[of_fused], atol=1e-3)

    at_end, offline = segmentor.finalize(), joined(segmentor.scan())
    assert at_end.info.instance_source == 'joined'
    assert len(at_end.instances) == len(offline.instances) > 0
    for got, want in zip(at_end.instances, offline.instances):
        np.testing.assert_array_equal(got.members, want.members)
        assert (got.score, got.label) == (want.score, want.label)
    np.testing.assert_array_equal(at_end.semantic, offline.semantic)


def test_the_end_is_the_offline_model_on_a_file_of_the_map(finished, inferencer, tmp_path):
    at_end = finished.finalize()
    at_end.points.astype(np.float32).tofile(tmp_path / 'map.bin')
    offline = inferencer(str(tmp_path / 'map.bin'), up='z')
    np.testing.assert_array_equal(at_end.semantic, offline.semantic)
    np.testing.assert_array_equal(at_end.panoptic, offline.panoptic)


def test_one_frame_is_the_offline_model_on_its_points(segmentor, inferencer, frames):
    segmentor.step(frames[5])
    instances = segmentor.finalize().instances
    local = LocalModel(inferencer, 0.3)
    points = segmentor.scan().points
    found = local(points, np.arange(len(points)))
    assert len(instances) == len(found.labels) > 0
    shown = objects_of(points)
    of_local = [np.bincount(shown[mask]).argmax() for mask in found.masks]
    of_offline = [np.bincount(shown[i.members]).argmax() for i in instances]
    assert sorted(of_local) == sorted(of_offline)


@pytest.mark.parametrize('at', [1, 7])
def test_snapshot_and_restore_are_the_undisturbed_run(inferencer, frames, finished, tmp_path, at):
    first = StreamingSegmentor(inferencer, up=UP, ledger=tmp_path / 'votes')
    for frame in frames[:at]:
        first.step(frame)
    state = first.snapshot()
    first.step(frames[at])  # what came after the snapshot is taken again
    second = StreamingSegmentor(inferencer, up=UP, ledger=tmp_path / 'votes')
    second.restore(state)
    for frame in frames[at:]:
        second.step(frame)

    expected, got = finished.snapshot().arrays, second.snapshot().arrays
    assert expected.keys() == got.keys()
    for name, values in expected.items():
        if not name.startswith('ledger'):
            np.testing.assert_array_equal(got[name], values, err_msg=name)


def test_frames_that_cannot_be_used_are_counted_and_change_nothing(segmentor, frames):
    segmentor.step(frames[2])
    before = segmentor.snapshot().arrays
    nan, scaled = frames[3].world_from_cam.copy(), frames[3].world_from_cam * 2
    nan[0, 3] = np.nan
    holes = np.zeros_like(frames[3].depth)
    few = holes.copy()
    few[:2, :2] = 1
    reasons = [
        segmentor.step(replace(frames[3], world_from_cam=nan)).left_out,
        segmentor.step(replace(frames[3], world_from_cam=scaled)).left_out,
        segmentor.step(replace(frames[3], depth=holes)).left_out,
        segmentor.step(replace(frames[3], depth=few)).left_out,
        segmentor.step(replace(frames[3], depth=np.full_like(holes, np.nan))).left_out,
        segmentor.step(frames[2]).left_out,
    ]
    lost, none = 'no usable pose', 'no depth'
    assert reasons == [lost, lost, none, 'too few depths', none, 'a second time']
    assert segmentor.left_out == {lost: 2, none: 2, 'too few depths': 1, 'a second time': 1}
    assert '2 frames left out: no usable pose' in segmentor.warnings
    after = segmentor.snapshot().arrays
    for name in before:
        if name not in ('reasons', 'num_left_out'):
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    assert segmentor.step(frames[3]).left_out == ''


def test_an_empty_first_frame(segmentor, frames):
    assert segmentor.step(replace(frames[0], depth=0 * frames[0].depth)).left_out == 'no depth'
    with pytest.raises(ValueError, match='nothing to segment'):
        segmentor.finalize()
    assert len(segmentor.step(frames[2]).ids) > 0


def test_depth_with_holes_and_infinities(segmentor, frames):
    depth = frames[2].depth.copy()
    depth[::7] = 0
    depth[::5, ::3] = np.nan
    depth[1::9, ::4] = np.inf
    result = segmentor.step(replace(frames[2], depth=depth))
    assert np.isfinite(result.points).all()
    assert len(result.ids) > 0


def test_frames_of_another_size(segmentor, frames):
    """Depth of twice the size shows more, and what was there keeps its tracks."""
    whole = segmentor.step(frames[2])
    K = frames[2].depth_intrinsics.copy()
    K[:2, :2] *= 2
    K[:2, 2] = K[:2, 2] * 2 + 0.5
    large = frames[2].depth.repeat(2, 0).repeat(2, 1)
    again = segmentor.step(replace(frames[2], index=99, depth=large, depth_intrinsics=K))
    assert len(again.points) > 2 * len(whole.points)
    assert len(whole.ids) > 0
    assert set(whole.ids) <= set(again.ids)


def test_frames_in_any_order_make_the_same_map(inferencer, frames, finished):
    backwards = StreamingSegmentor(inferencer, up=UP)
    for frame in frames[::-1]:
        backwards.step(frame)
    np.testing.assert_array_equal(backwards.surface.keys, finished.surface.keys)
    np.testing.assert_array_equal(backwards.surface.counts, finished.surface.counts)
    np.testing.assert_allclose(backwards.surface.sums, finished.surface.sums, rtol=1e-9, atol=1e-9)
    track, thing = truth_of(backwards)
    for k in np.unique(track[track >= 0]):
        things, counts = np.unique(thing[track == k], return_counts=True)
        assert counts.max() >= 0.8 * counts.sum()
        assert things[counts.argmax()] > 0


def test_a_pose_jump_of_one_frame_does_no_lasting_harm(inferencer, frames):
    segmentor = StreamingSegmentor(inferencer, up=UP)
    jumped = frames[4].world_from_cam.copy()
    jumped[:3, 3] += (0.0, 0.0, 9.0)
    for frame in [*frames[:4], replace(frames[4], world_from_cam=jumped), *frames[5:]]:
        segmentor.step(frame)
    xyz, track = segmentor.track_voxels()
    thing = objects_of(segmentor.surface.points())
    inside = xyz[:, 2] < 5
    for k in np.unique(thing[inside & (thing > 0)]):
        of_thing = track[inside & (thing == k)]
        if len(of_thing) >= 40:
            assert (of_thing == np.bincount(of_thing + 1).argmax() - 1).mean() >= 0.8


def test_features_that_are_no_numbers_harm_nobody(inferencer, frames):
    segmentor = StreamingSegmentor(inferencer, up=UP)
    segmentor.model = WithoutFeatures(inferencer, 0.3)
    for frame in frames:
        segmentor.step(frame)
    track, thing = truth_of(segmentor)
    for k in np.unique(track[track >= 0]):
        counts = np.bincount(thing[track == k])
        assert counts.max() >= 0.8 * counts.sum()


def test_two_scenes_in_one_process(inferencer, frames, finished):
    other = StreamingSegmentor(inferencer, up=UP)
    result = other.step(frames[2])
    assert result.ids.min() == 0
    assert other.merge.num_frames == 1
    assert finished.merge.num_frames == len(frames)


def test_another_segmentor_is_refused(tmp_path):
    with pytest.raises(TypeError, match='streaming needs a OneFormer3D'):
        StreamingSegmentor(write_config(tmp_path), write_checkpoint(tmp_path), device='cpu')
    with pytest.raises(ValueError, match='needs trained weights'):
        StreamingSegmentor(write_config(tmp_path))


def test_the_result_is_a_segmentation(finished):
    assert isinstance(finished.finalize(), Segmentation)
