"""What a set of scanned rooms is made with.

Everything that changes the bytes of a scene is in ``ScannedSettings`` (or is the seed).
"""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ScannedSettings:
    """Settings of the scanned generator; every pair is an inclusive range (low, high).

    Attributes:
        room_size: longer and shorter side of the floor are drawn from it, metres.
        room_height: metres.
        furnishing: how full rooms are; 1 is a lived-in room, 0 an empty one.
        num_views: recorded frames.
        image_size: (H, W) pixels.
        field_of_view: horizontal field of view in degrees.
        pose_shift, pose_turn: level of the pose errors of a scan, metres and degrees.
        depth_noise: standard deviation of depth at 1 m in metres; grows with depth squared.
        color_noise: standard deviation of colour, 0–255.
        tilt: how far the recorded world may lean, degrees.
        voxel_size: edge in metres of the cubes to which clouds are thinned, the model's.
        min_instance_points: objects with fewer points stay unlabeled.
        jpeg_quality: 1–100.

    Raises:
        ValueError: a range of the wrong order, or rooms, images or cubes without extent.
    """

    room_size: tuple[float, float] = (3.5, 8.0)
    room_height: tuple[float, float] = (2.3, 3.2)
    furnishing: tuple[float, float] = (0.5, 1.3)
    num_views: tuple[int, int] = (10, 28)
    image_size: tuple[int, int] = (240, 320)
    field_of_view: tuple[float, float] = (56.0, 66.0)
    pose_shift: tuple[float, float] = (0.0, 0.015)
    pose_turn: tuple[float, float] = (0.0, 0.35)
    depth_noise: tuple[float, float] = (0.001, 0.003)
    color_noise: float = 3.0
    tilt: float = 1.5
    voxel_size: float = 0.05
    min_instance_points: int = 12
    jpeg_quality: int = 92

    def __post_init__(self) -> None:
        """Raise ValueError for settings no room can be made with."""
        for name, value in asdict(self).items():
            if isinstance(value, tuple) and name != 'image_size' and not 0 <= value[0] <= value[1]:
                raise ValueError(f'{name}: expected 0 <= low <= high, got {value}')
        if min(self.image_size) < 16 or self.num_views[0] < 1:
            raise ValueError(
                f'expected images of 16 pixels or more and at least one view, got '
                f'image_size {self.image_size}, num_views {self.num_views}'
            )
        if self.voxel_size <= 0 or self.room_size[0] < 2.5:
            raise ValueError(
                f'expected a positive voxel_size and rooms of 2.5 m or more, got '
                f'{self.voxel_size}, {self.room_size}'
            )


def small_scanned_settings() -> ScannedSettings:
    """A small room of few coarse frames, for fixtures and smoke tests."""
    return ScannedSettings(
        room_size=(3.5, 4.0),
        num_views=(5, 6),
        image_size=(90, 120),
        voxel_size=0.08,
        min_instance_points=6,
    )
