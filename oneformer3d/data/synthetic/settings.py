"""What a set of synthetic rooms is made with: sizes, counts, camera and sensor.

Everything that changes the bytes of a scene is in ``RoomSettings`` (or is the seed), so two sets
with equal settings and seed are equal.
"""

from dataclasses import asdict, dataclass

GENERATOR_VERSION = 1


@dataclass(frozen=True)
class RoomSettings:
    """Settings of the generator; every pair is an inclusive range (low, high).

    Attributes:
        room_width, room_depth, room_height: extents in metres.
        num_doors … num_clutter: how many of each are tried per room (what does not fit is left).
        num_panels: pictures, windows and whiteboards together.
        num_boxes: cabinets and refrigerators together.
        num_tables: tables and desks together.
        num_views: posed images per room.
        image_size: (H, W) pixels.
        field_of_view: horizontal field of view in degrees.
        point_spacing: least distance between two points of the cloud in metres.
        color_misalignment: standard deviation, per axis in metres, of the distance between a point
            and the position it has its colour from.
        min_instance_points: objects with fewer visible points stay unlabeled.
        superpoint_threshold: larger makes larger superpoints.
        normal_noise: standard deviation added to the unit normals that superpoints are grown with.
        depth_noise: standard deviation of depth at 1 m in metres; grows with depth squared.
        color_noise: standard deviation of colour, 0–255.
        jpeg_quality: 1–100, chroma not subsampled.
    """

    room_width: tuple[float, float] = (4.8, 5.6)
    room_depth: tuple[float, float] = (4.0, 4.8)
    room_height: tuple[float, float] = (2.4, 2.6)
    num_doors: tuple[int, int] = (1, 2)
    num_panels: tuple[int, int] = (6, 7)
    num_boxes: tuple[int, int] = (3, 4)
    num_bookshelves: tuple[int, int] = (1, 2)
    num_beds: tuple[int, int] = (1, 1)
    num_sofas: tuple[int, int] = (1, 1)
    num_tables: tuple[int, int] = (2, 3)
    num_chairs: tuple[int, int] = (3, 4)
    num_lamps: tuple[int, int] = (1, 2)
    num_clutter: tuple[int, int] = (3, 6)
    num_views: int = 18
    image_size: tuple[int, int] = (240, 320)
    field_of_view: tuple[float, float] = (60.0, 66.0)
    point_spacing: float = 0.05
    color_misalignment: float = 0.02
    min_instance_points: int = 20
    superpoint_threshold: float = 0.1
    normal_noise: float = 0.06
    depth_noise: float = 0.0015
    color_noise: float = 2.0
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        """Raise ValueError for settings no room can be made with."""
        for name, value in asdict(self).items():
            if isinstance(value, tuple) and name != 'image_size' and not 0 <= value[0] <= value[1]:
                raise ValueError(f'{name}: expected 0 <= low <= high, got {value}')
        if min(self.image_size) < 16 or self.num_views < 1:
            raise ValueError(
                f'expected images of 16 pixels or more and at least one view, got '
                f'image_size {self.image_size}, num_views {self.num_views}'
            )
        if self.point_spacing <= 0 or min(self.room_width[0], self.room_depth[0]) < 2.0:
            raise ValueError(
                f'expected a positive point_spacing and rooms of 2 m or more, got '
                f'{self.point_spacing}, {self.room_width} x {self.room_depth}'
            )


def tiny_settings() -> RoomSettings:
    """A small sparse room with few low-resolution views, for fixtures and smoke tests."""
    return RoomSettings(
        room_width=(2.8, 3.2),
        room_depth=(2.6, 3.0),
        num_doors=(1, 1),
        num_panels=(2, 3),
        num_boxes=(1, 1),
        num_bookshelves=(0, 0),
        num_beds=(0, 0),
        num_sofas=(1, 1),
        num_tables=(1, 1),
        num_chairs=(2, 2),
        num_lamps=(0, 1),
        num_clutter=(1, 1),
        num_views=5,
        image_size=(72, 96),
        field_of_view=(70.0, 70.0),
        point_spacing=0.08,
        min_instance_points=8,
    )
