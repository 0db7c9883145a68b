import pytest

from oneformer3d.files.errors import foreign_parser


def test_whatever_a_parser_raises_names_the_file(tmp_path):
    path = tmp_path / 'a.npy'
    path.touch()
    for error in (KeyError('magic'), EOFError(), FileNotFoundError('texture.png')):
        with (
            pytest.raises(ValueError, match=r'a\.npy: not a readable array'),
            foreign_parser(path, 'array'),
        ):
            raise error


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path):
    path = tmp_path / 'a.npy'
    with pytest.raises(FileNotFoundError, match=r'a\.npy'), foreign_parser(path, 'array'):
        path.read_bytes()


def test_interrupts_pass(tmp_path):
    with pytest.raises(KeyboardInterrupt), foreign_parser(tmp_path, 'array'):
        raise KeyboardInterrupt
