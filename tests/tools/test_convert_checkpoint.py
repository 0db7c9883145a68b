"""The shipped weights there and back, and files that are no checkpoints of ours."""

import torch

from oneformer3d.files.checkpoints import load_checkpoint_file

WEIGHTS = 'weights/rooms_points.safetensors'


def test_weights_go_to_the_published_layout_and_back(run_tool, tmp_path):
    published, back = tmp_path / 'published.pth', tmp_path / 'back.pth'
    tool = 'tools/convert_checkpoint.py'
    first = run_tool(tool, WEIGHTS, '--out', published, '--layout', 'published')
    assert 'model: configs/rooms_points.py, class table rooms' in first.stdout
    assert "layout: spconv's modules, (out, kD, kH, kW, in)" in first.stdout
    command = f'oneformer3d infer SCAN --config configs/rooms_points.py --checkpoint {published}'
    assert command in first.stdout

    second = run_tool(tool, published, '--out', back)
    assert 'layout: published files, (kD, kH, kW, in, out)' in second.stdout
    original, moved, again = (load_checkpoint_file(path) for path in (WEIGHTS, published, back))
    assert original.keys() == again.keys()
    for name, value in original.items():
        assert torch.equal(value, again[name])
        if value.ndim == 5:
            assert torch.equal(moved[name], value.permute(1, 2, 3, 4, 0))


def test_an_unknown_file_is_one_line(run_tool, tmp_path):
    path = tmp_path / 'other.pth'
    torch.save({'state_dict': {'layer.weight': torch.zeros(1)}}, path)
    result = run_tool('tools/convert_checkpoint.py', path, '--out', tmp_path / 'x.pth', status=2)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f'error: {path}: 1 tensors')
    assert not (tmp_path / 'x.pth').exists()
