"""The merging rule on scenes whose right answer is plain."""

import numpy as np
import pytest

from oneformer3d.streaming import MergeSettings, MergeState, OnlineMerge
from oneformer3d.streaming.track_sums import MAX_BYTES_PER_TRACK
from oneformer3d.streaming.votes import BYTES_PER_VOXEL
from tests.helpers.stream_scenes import VOXEL, box, camera_frame, feature, frame, pose

CHAIR = box((0, 0, 0), (8, 8, 10))
OTHER = box((30, 0, 0), (38, 8, 10))
FLOOR = box((-10, -10, -1), (50, 20, 0))


def kinds(merge: OnlineMerge) -> list[str]:
    return [event.kind for event in merge.events]


def test_objects_keep_their_ids_and_order_in_the_frame_means_nothing():
    merge = OnlineMerge(VOXEL)
    assert merge.update(frame(CHAIR, OTHER)).tolist() == [0, 1]
    assert merge.update(frame(OTHER, CHAIR)).tolist() == [1, 0]
    chair, other = merge.tracks()
    assert chair.state == other.state == 'confirmed'
    np.testing.assert_allclose(chair.box, np.array([[0, 0, 0], [8, 8, 10]]) * VOXEL)
    assert (chair.hits, len(chair.voxels)) == (2, len(CHAIR))


@pytest.mark.parametrize('visible', [(), (FLOOR,)])
def test_empty_frames_first_and_later(visible):
    merge = OnlineMerge(VOXEL)
    assert merge.update(frame(visible=visible)).tolist() == []
    assert merge.tracks() == []
    assert merge.update(frame(CHAIR)).tolist() == [0]
    assert merge.update(frame(visible=visible)).tolist() == []
    assert merge.update(frame(CHAIR)).tolist() == [0]


def test_frames_of_other_sizes_and_a_second_scene_in_one_process():
    first, second = OnlineMerge(VOXEL), OnlineMerge(VOXEL)
    first.update(frame(CHAIR, visible=(FLOOR,)))
    first.update(frame(CHAIR[:300]))
    assert second.update(frame(OTHER)).tolist() == [0]
    assert first.update(frame(CHAIR)).tolist() == [0]
    assert [len(m.tracks()) for m in (first, second)] == [1, 1]


def test_labels_vote_and_do_not_gate():
    merge = OnlineMerge(VOXEL)
    for label in (1, 2, 1, 1):
        assert merge.update(frame(CHAIR, labels=(label,))).tolist() == [0]
    assert merge.tracks()[0].label == 1


def test_different_objects_that_touch_stay_two():
    # what merges without a threshold: cosine 0.02, boxes that overlap a little
    looks = np.stack([feature(0), feature(np.pi / 2 - 0.02)])
    touching = box((7, 0, 0), (15, 8, 10))
    merge = OnlineMerge(VOXEL)
    assert merge.update(frame(CHAIR, features=looks[:1])).tolist() == [0]
    assert merge.update(frame(touching, features=looks[1:])).tolist() == [1]
    assert merge.update(frame(CHAIR, touching, features=looks)).tolist() == [0, 1]


def test_two_equal_chairs_side_by_side_stay_two():
    beside, looks = box((9, 0, 0), (17, 8, 10)), np.stack([feature(0), feature(0)])
    merge = OnlineMerge(VOXEL)
    for first, second in ((CHAIR, beside), (CHAIR, beside)) * 10:
        assert merge.update(frame(first, second, features=looks)).tolist() == [0, 1]
    # one frame that takes both for one does not join them
    merge.update(frame(np.concatenate([CHAIR, beside]), features=looks[:1]))
    for _ in range(10):
        assert merge.update(frame(CHAIR, beside, features=looks)).tolist() == [0, 1]
    assert 'merge' not in kinds(merge)


def test_equal_looks_alone_join_nothing():
    looks = feature(0)[None]
    merge = OnlineMerge(VOXEL)
    assert merge.update(frame(CHAIR, features=looks)).tolist() == [0]
    assert merge.update(frame(OTHER, features=looks)).tolist() == [1]


def test_object_seen_only_in_parts_becomes_one():
    # a camera slides along a long table: parts overlap, first and last do not
    parts = [box((x, 0, 0), (x + 20, 10, 4)) for x in range(0, 100, 10)]
    merge = OnlineMerge(VOXEL)
    ids = [merge.update(frame(part)).item() for part in parts]
    assert ids == [0] * 10
    assert len(merge.tracks()[0].voxels) == 110 * 10 * 4


def test_both_ends_of_an_object_join_when_frames_show_it_whole():
    left, right = box((0, 0, 0), (10, 10, 4)), box((20, 0, 0), (30, 10, 4))
    merge = OnlineMerge(VOXEL, MergeSettings(repair_every=2))
    assert merge.update(frame(left)).tolist() == [0]
    assert merge.update(frame(right)).tolist() == [1]
    for _ in range(4):
        merge.update(frame(box((0, 0, 0), (30, 10, 4))))
    assert [track.id for track in merge.tracks()] == [0]
    assert ('merge', 0, 1) in [(e.kind, e.track, e.other) for e in merge.events]
    assert merge.tracks_of(1).tolist() == [0]


def test_fragments_within_a_frame_join_their_track():
    merge = OnlineMerge(VOXEL)
    merge.update(frame(CHAIR))
    assert merge.update(frame(CHAIR[:400], CHAIR[400:])).tolist() == [0, 0]


def test_chair_behind_a_table_stays_itself():
    # the table hides the lower half of the chair; then the camera goes around
    table = box((0, -20, 4), (8, -8, 5))
    upper = CHAIR[CHAIR[:, 2] >= 6]
    merge = OnlineMerge(VOXEL)
    assert merge.update(frame(table, upper)).tolist() == [0, 1]
    assert merge.update(frame(table, CHAIR)).tolist() == [0, 1]
    assert merge.update(frame(CHAIR, table)).tolist() == [1, 0]


def test_camera_leaves_and_returns():
    merge = OnlineMerge(VOXEL, MergeSettings(dormant_after=5, repair_every=3))
    for _ in range(3):
        merge.update(frame(CHAIR, visible=(FLOOR,)))
    for _ in range(60):
        merge.update(frame(OTHER))
    assert [track.state for track in merge.tracks()] == ['dormant', 'confirmed']
    assert merge.update(frame(CHAIR)).tolist() == [0]
    assert kinds(merge).count('revived') == 1


def test_pure_rotation_shows_more_and_keeps_ids():
    merge = OnlineMerge(VOXEL)
    scene = np.concatenate([CHAIR, OTHER])
    for right in range(6, 40, 2):
        view = [part[part[:, 0] < right] for part in (CHAIR, OTHER)]
        ids = merge.update(frame(*(v for v in view if len(v))))
        assert ids.tolist() == [0, 1][: len(ids)]
    assert sum(len(track.voxels) for track in merge.tracks()) == len(scene)


def test_depth_holes_do_not_split():
    merge = OnlineMerge(VOXEL, MergeSettings(repair_every=1))
    rng = np.random.default_rng(0)
    for _ in range(10):
        seen = CHAIR[rng.random(len(CHAIR)) > 0.6]
        assert merge.update(frame(seen)).tolist() == [0]
    assert len(merge.tracks()) == 1


def test_moved_object_keeps_its_id_and_leaves_its_place():
    looks = np.stack([feature(0), feature(1.5)])
    merge = OnlineMerge(VOXEL)
    for _ in range(3):
        merge.update(frame(CHAIR, OTHER, features=looks))
    away = CHAIR + np.array([0, 30, 0])
    for _ in range(6):
        merge.update(frame(OTHER, features=looks[1:], free=CHAIR))
    assert merge.update(frame(away, OTHER, features=looks)).tolist() == [0, 1]
    assert kinds(merge)[-1] == 'moved'
    assert merge.tracks()[0].voxels[:, 1].min() >= 30
    assert (merge.owners_of(CHAIR) == -1).all()


def test_a_pose_jump_of_one_frame_does_no_lasting_harm():
    merge = OnlineMerge(VOXEL, MergeSettings(forget_after=5, repair_every=5))
    for _ in range(5):
        merge.update(frame(CHAIR, OTHER))
    jump = np.array([4, 4, 20])
    merge.update(frame(CHAIR + jump, OTHER + jump, free=CHAIR))
    for _ in range(14):
        assert merge.update(frame(CHAIR, OTHER)).tolist() == [0, 1]
    confirmed = [track.id for track in merge.tracks() if track.state == 'confirmed']
    assert confirmed == [0, 1] == [track.id for track in merge.tracks()]
    assert set(merge.owners_of(CHAIR).tolist()) == {0}


def test_a_track_that_falls_apart_is_split():
    # one frame takes two chairs for one, all others do not
    merge = OnlineMerge(VOXEL, MergeSettings(repair_every=6))
    merge.update(frame(np.concatenate([CHAIR, OTHER])))
    for _ in range(5):
        merge.update(frame(CHAIR, OTHER))
    ids = merge.update(frame(CHAIR, OTHER)).tolist()
    assert ids[0] != ids[1]
    assert 'split' in kinds(merge)
    assert [len(track.voxels) for track in merge.tracks()] == [len(CHAIR), len(OTHER)]


def test_duplicates_change_nothing():
    merge = OnlineMerge(VOXEL)
    merge.update(frame(CHAIR, index=7))
    before = merge.snapshot().arrays
    assert merge.update(frame(CHAIR, index=7)).tolist() == [0]
    after = merge.snapshot().arrays
    assert merge.num_duplicates == 1
    for name in set(before) - {'num_duplicates'}:
        np.testing.assert_array_equal(before[name], after[name])


def test_frames_out_of_order_vote_the_same():
    frames = [frame(CHAIR[i * 80 :], OTHER, index=i) for i in range(5)]
    merges = [OnlineMerge(VOXEL), OnlineMerge(VOXEL)]
    for merge, order in zip(merges, ([0, 1, 2, 3, 4], [0, 3, 1, 4, 2])):
        for i in order:
            assert merge.update(frames[i]).tolist() == [0, 1]
    for a, b in zip(*(merge.tracks() for merge in merges)):
        np.testing.assert_array_equal(a.voxels, b.voxels)
        np.testing.assert_array_equal(a.weights, b.weights)


def test_nan_features_scores_and_logits():
    looks = np.stack([feature(0), feature(1.5)])
    broken = looks.copy()
    broken[0] = np.nan
    merge = OnlineMerge(VOXEL)
    merge.update(frame(CHAIR, OTHER, features=looks, labels=(1, 2)))
    assert merge.update(frame(CHAIR, OTHER, features=broken)).tolist() == [0, 1]
    np.testing.assert_allclose(merge.tracks()[0].feature, feature(0), atol=1e-4)
    assert merge.update(frame(CHAIR, OTHER, features=looks, scores=(np.nan, 0.5))).tolist() == [
        -1,
        1,
    ]
    bad = frame(CHAIR, features=looks[:1], labels=(0,))
    bad.class_logits[:] = np.nan
    merge.update(bad)
    assert merge.tracks()[0].label == 1


def test_other_channels_than_before_are_refused():
    merge = OnlineMerge(VOXEL)
    merge.update(frame(CHAIR, features=feature(0)[None]))
    with pytest.raises(ValueError, match='features: expected 2'):
        merge.update(frame(CHAIR, features=np.ones((1, 3))))


def test_memory_per_voxel_and_per_track_is_as_documented():
    assert BYTES_PER_VOXEL <= 64
    with pytest.raises(ValueError, match='at most 8192'):
        OnlineMerge(VOXEL).update(frame(CHAIR, features=np.ones((1, 2000))))
    merge = OnlineMerge(VOXEL)
    merge.update(frame(CHAIR, features=np.ones((1, 256))))
    assert merge._sums.bytes_per_track <= MAX_BYTES_PER_TRACK
    votes = merge._votes
    arrays = (votes.keys, votes.tracks, votes.weights, votes.seen, votes.left, votes.inexact)
    assert sum(a.nbytes for a in arrays) == BYTES_PER_VOXEL * len(votes)


# ------------------------------------------------------------------ undo, resume


def walk(num_frames: int, seed: int = 0):
    """Frames of a room with six boxes, with poses, free space and overlapping masks."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-2, 2, size=(6, 3))
    for index in range(num_frames):
        chosen = rng.choice(6, size=int(rng.integers(0, 5)), replace=False)
        boxes = [(corners[i], corners[i] + 0.5) for i in chosen]
        if index % 7 == 3 and boxes:
            boxes[0] = (boxes[0][0] - 0.3, boxes[0][1] + 0.3)
        yield camera_frame(rng, boxes, pose(rng), index)


def assert_same_state(a: OnlineMerge, b: OnlineMerge, without: tuple[str, ...] = ()) -> None:
    first, second = a.snapshot().arrays, b.snapshot().arrays
    assert first.keys() == second.keys()
    for name in first:
        if name not in without:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_loop_closure_is_a_fresh_run_bit_for_bit():
    rng = np.random.default_rng(1)
    frames = list(walk(40))
    merge = OnlineMerge(VOXEL, MergeSettings(repair_every=5, forget_after=8))
    for one in frames:
        merge.update(one)
    assert {'birth', 'merge'} <= set(kinds(merge))

    corrected = {}
    for number in range(10, 30):
        change = np.eye(4)
        change[:3, 3] = rng.normal(size=3) * 0.2
        corrected[number] = change @ frames[number].source.world_from_cam
    before = merge.snapshot().arrays['votes_weights'].sum()
    merge.move_keyframes(corrected)

    fresh = OnlineMerge(VOXEL)
    for number, one in enumerate(frames):
        moved = one.moved(corrected[number], VOXEL) if number in corrected else one
        fresh.update(moved, tracks=merge.tracks_of(number))
    mine, theirs = merge.snapshot().arrays, fresh.snapshot().arrays
    for name in mine:
        if name.startswith(('votes_', 'sums_')) and name != 'votes_inexact':
            np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    assert mine['votes_weights'].sum() != before  # the votes did move
    for a, b in zip(merge.tracks(), fresh.tracks()):
        np.testing.assert_array_equal(a.box, b.box)
        assert (a.id, a.coverage, a.hits) == (b.id, b.coverage, b.hits)


def test_moving_there_and_back_changes_nothing():
    frames = list(walk(20))
    merge = OnlineMerge(VOXEL)
    for one in frames:
        merge.update(one)
    merge.move_keyframe(3, frames[3].source.world_from_cam)
    before = merge.snapshot().arrays
    merge.move_keyframe(3, pose(np.random.default_rng(5)))
    merge.move_keyframe(3, frames[3].source.world_from_cam)
    for name, value in merge.snapshot().arrays.items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_frames_without_points_and_broken_poses_cannot_be_moved():
    merge = OnlineMerge(VOXEL)
    merge.update(frame(CHAIR))
    with pytest.raises(ValueError, match='without its points'):
        merge.move_keyframe(0, np.eye(4))
    with pytest.raises(ValueError, match='there are 1'):
        merge.move_keyframe(1, np.eye(4))
    with pytest.raises(ValueError, match='no rigid motion'):
        merge.move_keyframe(0, np.full((4, 4), np.nan))


@pytest.mark.parametrize('at', [0, 1, 17, 35])
def test_killed_and_resumed_is_the_undisturbed_run(tmp_path, at):
    frames = list(walk(36))
    settings = MergeSettings(repair_every=5, forget_after=8)
    whole = OnlineMerge(VOXEL, settings)
    for one in frames:
        whole.update(one)

    first = OnlineMerge(VOXEL, settings, tmp_path / 'ledger')
    for one in frames[:at]:
        first.update(one)
    first.snapshot().save(tmp_path / 'state.npz')
    for one in frames[at : at + 3]:  # lost when the process is killed
        first.update(one)
    del first

    again = OnlineMerge(VOXEL, settings, tmp_path / 'ledger')
    again.restore(MergeState.load(tmp_path / 'state.npz'))
    assert again.num_frames == at
    for one in frames[at:]:
        again.update(one)
    assert_same_state(whole, again)
    assert whole.events == again.events


def test_broken_snapshot_and_short_ledger_are_refused(tmp_path):
    (tmp_path / 'state.npz').write_bytes(b'PK half a file')
    with pytest.raises(ValueError, match='no snapshot of tracks'):
        MergeState.load(tmp_path / 'state.npz')
    merge = OnlineMerge(VOXEL)
    merge.update(frame(CHAIR))
    with pytest.raises(ValueError, match='the ledger has 0 bytes'):
        OnlineMerge(VOXEL).restore(merge.snapshot())
