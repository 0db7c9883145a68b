"""The tool writes a picture per sample."""

from PIL import Image


def test_pictures_are_named_after_split_and_scene(run_tool, tiny_rooms, tmp_path):
    config = 'configs/oneformer3d_synthetic.py'
    out = tmp_path / 'pictures'
    run_tool(
        'tools/browse_dataset.py', config, '--output_dir', out, '--split', 'val', '--num', '2',
        '--data-root', tiny_rooms,
    )  # fmt: skip
    names = sorted(path.name for path in out.iterdir())
    assert [name[:13] for name in names] == ['val_0000_room', 'val_0001_room']
    with Image.open(out / names[0]) as picture:
        assert picture.width == 3 * 480
