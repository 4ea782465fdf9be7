import pytest

from simclr_mm.datasets import ImageFolder


def test_finds_images_at_any_depth(tmp_path):
    for name in ('b.JPG', 'a/c.png', 'a/b/d.webp', 'a/b/notes.txt'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [info['img_path'] for info in ImageFolder(str(tmp_path)).load_data_list()]
    assert found == [str(tmp_path / name) for name in ('a/b/d.webp', 'a/c.png', 'b.JPG')]


def test_missing_folder_and_empty_folder_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no folder .*nowhere.*--data'):
        ImageFolder(str(tmp_path / 'nowhere'))
    with pytest.raises(ValueError, match='holds no image, at any depth.*--data'):
        ImageFolder(str(tmp_path))
