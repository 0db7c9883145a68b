"""What may be set in ``OnlineMerge``."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MergeSettings:
    """Settings of the merging rule.

    Attributes:
        appearance: log-odds of equal features, see ``affinity.log_odds``.
        new_object: log-odds that an instance is new before anything is known of it.
        enough_voxels: common voxels from which overlap counts in full.
        fragment: an instance that no side chose joins the track that has this share of it.
        confirm_hits: instances from which a track is confirmed.
        least_support: ``Track.support`` from which a track is confirmed.
        forget_after: a tentative track that was not met for so many frames ends.
        dormant_after: a confirmed track that was not met for so many frames is dormant.
        moved_cosine: features at least so alike tell that an object was carried elsewhere.
        moved_left: share of a track's usual size below which its place counts as empty.
        repair_every: frames between repairs.
        join_overlap: share of the smaller of two tracks within the other from which they are one.
        bridges: frames that see two tracks as one instance, less those that see them as two, from
            which they are one.
        split_share: a piece with this share of a track's voxels may become a track of its own.
        split_gap: voxels that part two pieces.
        split_hits: instances that must show either piece without the other.
    """

    appearance: float = 2.0
    new_object: float = 0.5
    enough_voxels: int = 10
    fragment: float = 0.6
    confirm_hits: int = 2
    least_support: float = 0.5
    forget_after: int = 30
    dormant_after: int = 50
    moved_cosine: float = 0.85
    moved_left: float = 0.3
    repair_every: int = 10
    join_overlap: float = 0.5
    bridges: int = 2
    split_share: float = 0.2
    split_gap: int = 3
    split_hits: int = 2

    def __post_init__(self) -> None:
        for name in (
            'enough_voxels',
            'confirm_hits',
            'repair_every',
            'bridges',
            'split_gap',
            'split_hits',
        ):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}: expected at least 1, got {getattr(self, name)}')
