"""The model that comes with the package, on a generated scan of an unseen seed."""

import pytest

from oneformer3d import Inferencer
from oneformer3d.data.class_tables import get_class_table
from oneformer3d.data.synthetic.scanned.scan import generate_scanned_scene
from oneformer3d.files.shipped import find_checkpoint


def test_walls_and_floor_are_known_without_naming_a_model() -> None:
    scan = generate_scanned_scene(9)
    table = get_class_table('rooms')
    truth = table.contiguous_from_raw(scan.semantic)

    found = Inferencer(device='cpu')(scan.points).semantic
    floor, wall, ceiling = (table.classes.index(name) for name in ('floor', 'wall', 'ceiling'))
    assert (found[truth == floor] == floor).mean() > 0.8
    assert (found[truth == wall] == wall).mean() > 0.6
    assert not (found[truth == floor] == ceiling).any()


def test_only_weights_of_the_package_are_found_by_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint('weights/rooms_points.safetensors').is_file()
    for path in ('weights/../setup.py', 'setup.py', 'weights/none.pth'):
        with pytest.raises(FileNotFoundError, match='no such checkpoint file'):
            find_checkpoint(path)
