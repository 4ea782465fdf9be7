import pytest

from simclr_mm.datasets import ImageFolder
from simclr_mm.datasets.image_folder import class_names_of


def test_finds_images_at_any_depth(tmp_path):
    for name in ('b.JPG', 'a/c.png', 'a/b/d.webp', 'a/b/notes.txt'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [info['img_path'] for info in ImageFolder(str(tmp_path)).load_data_list()]
    assert found == [str(tmp_path / name) for name in ('a/b/d.webp', 'a/c.png', 'b.JPG')]


def test_class_folders_of_every_ending_with_labels(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'simclr_mm.datasets.image_folder.print_log', lambda line, **kwargs: lines.append(line)
    )
    for name in ('cat/a.webp', 'cat/deep/b.tiff', 'dog/c.JPG', '.simclr_mm_cache/x.png', 'up.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'empty').mkdir()
    data = ImageFolder(str(tmp_path), with_label=True)
    assert data.metainfo['classes'] == ('cat', 'dog', 'empty')
    assert data.get_gt_labels().tolist() == [0, 0, 1]
    assert [data.get_data_info(row)['img_path'] for row in range(3)] == [
        str(tmp_path / name) for name in ('cat/a.webp', 'cat/deep/b.tiff', 'dog/c.JPG')
    ]
    assert len(lines) == 2
    assert '1 of 3 classes have no image: empty' in lines[0]
    assert 'left out 1 images that lie in no folder of a class, the first' in lines[1]
    with pytest.raises(ValueError, match='has 3 class folders.* names 2'):
        ImageFolder(str(tmp_path), with_label=True, metainfo=dict(classes=('a', 'b')))
    (tmp_path / 'dog' / 'c.JPG').rename(tmp_path / 'c.jpg')
    assert len(ImageFolder(str(tmp_path), with_label=True)) == 2


def test_links_that_lead_nowhere_are_no_classes(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / '.hidden').mkdir()
    (tmp_path / 'b').symlink_to(tmp_path / 'a')
    (tmp_path / 'itself').symlink_to(tmp_path / 'itself')
    (tmp_path / 'c.png').touch()
    assert class_names_of(str(tmp_path)) == ['a', 'b']
