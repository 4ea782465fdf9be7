"""What is an image below a folder, and what is said of the rest."""

import os
import shutil

import pytest

from simclr_mm.errors import MissingFileError, UserError
from simclr_mm.files.walk import EXTENSIONS, image_paths, walk_images


@pytest.fixture
def folder(tmp_path):
    for name in ('a.jpg', 'B.JPG', 'sub/c.webp', 'sub/deep/d.tiff', 'other/e.png'):
        (tmp_path / 'd' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'd' / name).touch()
    return tmp_path / 'd'


IMAGES = ['B.JPG', 'a.jpg', 'other/e.png', 'sub/c.webp', 'sub/deep/d.tiff']


def names(folder, **kwargs):
    return [os.path.relpath(path, folder) for path in walk_images(folder, **kwargs).paths]


@pytest.mark.portable
def test_images_at_any_depth_sorted(folder):
    assert names(folder) == IMAGES
    assert walk_images(folder).others() == ''
    assert names(folder, extensions=('.png',)) == ['other/e.png']


@pytest.mark.parametrize('target', ['.', '..', '../..', '../sub'])
def test_a_link_to_a_parent_ends_and_each_file_is_there_once(folder, target):
    os.symlink(target, folder / 'sub' / 'up')
    found = walk_images(folder)
    assert len({os.path.realpath(path) for path in found.paths}) == len(found.paths)
    assert [os.path.relpath(path, folder) for path in found.paths] == IMAGES


def test_a_folder_outside_is_read_once_whatever_links_lead_there(folder, tmp_path):
    (tmp_path / 'far').mkdir()
    (tmp_path / 'far' / 'f.jpg').touch()
    for link in ('z', 'k', 'sub/m'):
        os.symlink(tmp_path / 'far', folder / link)
    os.symlink('sub', folder / 'alias')  # sorts before the folder's own name
    found = walk_images(folder)
    assert [os.path.relpath(path, folder) for path in found.paths] == sorted([*IMAGES, 'k/f.jpg'])
    listed = found.passed_over['link(s) to a folder that is listed already']
    assert sorted(os.path.relpath(path, folder) for path in listed) == ['alias', 'sub/m', 'z']


def test_two_names_of_a_file_are_two_images(folder):
    """As in folders of links that repeat an image, or put it into two classes."""
    os.symlink('a.jpg', folder / 'other' / 'again.jpg')
    os.link(folder / 'a.jpg', folder / 'other' / 'hard.jpg')
    os.unlink(folder / 'other' / 'again.jpg')
    os.symlink(folder / 'a.jpg', folder / 'other' / 'again.jpg')
    assert len(names(folder)) == len(IMAGES) + 2


def test_the_rest_is_counted_by_reason(folder, tmp_path):
    for name in ('1.heic', '2.HEIC', 'list.txt', 'README', '._a.jpg', '.thumbs/t.jpg'):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / '.simclr_mm_cache').mkdir()
    (folder / '.simclr_mm_cache' / 'x.png').touch()
    os.symlink('gone.jpg', folder / 'broken.jpg')
    os.symlink('self.jpg', folder / 'self.jpg')
    os.mkfifo(folder / 'pipe.jpg')  # opening it would wait for ever
    found = walk_images(folder)
    assert [os.path.relpath(path, folder) for path in found.paths] == IMAGES
    assert found.others() == (
        f'2 .heic, 2 broken link(s) ({folder}/broken.jpg, {folder}/self.jpg), 2 hidden, 1 .txt, '
        f'1 neither file nor folder ({folder}/pipe.jpg), 1 without an ending'
    )


def test_an_unreadable_subfolder_is_named(folder, monkeypatch):
    scandir = os.scandir

    def locked(path):
        if str(path).endswith('other'):
            raise PermissionError(13, 'Permission denied')
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', locked)
    found = walk_images(folder)
    assert [os.path.relpath(path, folder) for path in found.paths] == [*IMAGES[:2], *IMAGES[3:]]
    assert found.others() == f'1 folder(s) that cannot be read ({folder}/other)'
    with pytest.raises(UserError, match='other cannot be read: Permission denied'):
        walk_images(folder / 'other')


def test_a_name_that_is_not_utf8_is_listed_and_can_be_printed(folder):
    name = os.fsdecode(b'caf\xe9.jpg')
    (folder / name).touch()
    os.symlink('gone', os.path.join(folder, os.fsdecode(b'\xe9.jpg')))
    found = walk_images(folder)
    assert os.path.join(folder, name) in found.paths
    assert r'\xe9.jpg' in found.others() and found.others().encode()


def test_one_line_of_the_log(folder, monkeypatch):
    lines = []
    monkeypatch.setattr('simclr_mm.files.walk.print_log', lambda line, **kwargs: lines.append(line))
    assert len(image_paths(folder)) == 5 and not lines
    for name in ('1.heic', '2.heic'):
        (folder / name).touch()
    assert len(image_paths(folder)) == 5
    assert lines == [f'{folder}: 5 images; passed over: 2 .heic']


def test_no_folder_and_no_image_say_what_to_do(folder, tmp_path):
    with pytest.raises(MissingFileError, match='there is no folder .*nowhere.*--data'):
        image_paths(tmp_path / 'nowhere')
    with pytest.raises(MissingFileError, match='a.zip is a file: give the folder.*unpack'):
        (tmp_path / 'a.zip').touch()
        image_paths(tmp_path / 'a.zip')
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / 'a.heic').touch()
    with pytest.raises(UserError, match='holds no image, at any depth.*passed over: 1 .heic'):
        image_paths(folder)


def test_the_list_of_endings():
    assert all(ending == ending.lower() and ending[0] == '.' for ending in EXTENSIONS)
