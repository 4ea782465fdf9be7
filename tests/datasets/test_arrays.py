import os
from urllib.error import URLError

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from simclr_mm.datasets import (
    CIFAR10,
    CIFAR100,
    STL10,
    ArrayFile,
    Digits,
    InMemoryFolder,
    TinyImageNet,
)
from simclr_mm.datasets.decoded_files import free_memory, read_images
from simclr_mm.errors import UserError


def write_folders(root, colours=((250, 0, 0), (0, 0, 250)), size=8):
    """root/{train,test}/{a,b}/*.png, class a red and class b blue."""
    for split in ('train', 'test'):
        for name, rgb in zip('ab', colours):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.new('RGB', (size, size), rgb).save(folder / f'{i}.png')


def test_digits_are_split_once_and_keep_their_grey_levels():
    train, test = Digits(split='train'), Digits(split='test')
    assert (len(train), len(test)) == (1297, 500)
    counts = np.bincount(test.get_gt_labels())
    assert counts.min() >= 48 and counts.max() <= 52  # stratified: 50 of each
    both = np.concatenate([train.images, test.images])[..., 0].astype(int)
    original = np.round(load_digits().images * 255 / 16).astype(int)
    assert sorted(map(bytes, both.astype(np.uint8))) == sorted(
        map(bytes, original.astype(np.uint8))
    )


def test_samples_carry_labels_only_when_asked():
    assert 'gt_label' in Digits(split='test')[0]
    assert 'gt_label' not in Digits(split='test', with_label=False)[0]


@pytest.mark.parametrize('dataset', [CIFAR10, CIFAR100, STL10, TinyImageNet])
def test_class_folders_give_bgr(tmp_path, dataset):
    write_folders(tmp_path)
    data = dataset(data_root=str(tmp_path), split='train')
    assert data.metainfo['classes'] == ('a', 'b')
    assert data[0]['img'][0, 0].tolist() == [0, 0, 250]  # red, BGR
    assert [data[i]['gt_label'] for i in range(6)] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize('dataset', [CIFAR10, CIFAR100])
def test_torchvision_arrays_become_bgr(tmp_path, monkeypatch, dataset):

    class Fake:
        data = np.full((2, 4, 4, 3), (250, 0, 0), np.uint8)  # red, RGB
        targets, classes = [1, 0], ['a', 'b']

        def __init__(self, root, train, download):
            assert root == str(tmp_path) and train

    monkeypatch.setattr(f'torchvision.datasets.{dataset.__name__}', Fake)
    data = dataset(data_root=str(tmp_path), split='train')
    assert data[0]['img'][0, 0].tolist() == [0, 0, 250] and data[0]['gt_label'] == 1


@pytest.mark.parametrize('error', [URLError('no network'), RuntimeError('File not found')])
def test_a_failed_download_says_what_is_missing(tmp_path, monkeypatch, error):

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr('torchvision.datasets.CIFAR10', fail)
    root = tmp_path / 'data' / 'cifar'
    wanted = f'{root} has neither test/<class>/ nor cifar-10-batches-py/, and CIFAR10 cannot'
    with pytest.raises(UserError, match=wanted):
        CIFAR10(data_root=str(root), split='test')
    assert not list(tmp_path.iterdir())


def test_unlabelled_images_of_stl10_have_no_label(tmp_path, monkeypatch):

    class Fake:
        data = np.zeros((2, 3, 4, 4), np.uint8)
        labels, classes = np.array([-1, -1]), ['a']

        def __init__(self, root, split, download):
            assert split == 'unlabeled'

    monkeypatch.setattr('torchvision.datasets.STL10', Fake)
    data = STL10(data_root=str(tmp_path), split='unlabeled')
    assert 'gt_label' not in data[0] and data[0]['img'].shape == (4, 4, 3)


def test_unlabelled_images_of_stl10_in_folders(tmp_path):
    write_folders(tmp_path)
    (tmp_path / 'unlabeled').mkdir()
    Image.new('RGB', (8, 8), (0, 250, 0)).save(tmp_path / 'unlabeled' / '0.png')
    data = STL10(data_root=str(tmp_path), split='train+unlabeled')
    assert [data[i].get('gt_label') for i in range(7)] == [0, 0, 0, 1, 1, 1, None]


def test_errors_name_split_file_and_size(tmp_path):
    with pytest.raises(ValueError, match="split is 'val': choose one of train, test"):
        CIFAR10(data_root=str(tmp_path), split='val')
    write_folders(tmp_path)
    broken = tmp_path / 'train' / 'b' / '1.png'
    cv2.imwrite(str(broken), np.zeros((5, 5, 3), np.uint8))
    with pytest.raises(ValueError, match=r'1\.png is 5 x 5 pixels.*8 x 8'):
        CIFAR10(data_root=str(tmp_path), split='train')
    broken.write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'1 of 6 images .*1\.png: not an image'):
        CIFAR10(data_root=str(tmp_path), split='train')


def test_samples_do_not_share_memory_with_the_array():
    data = Digits()
    data[0]['img'][:] = 99
    assert not np.array_equal(data[0]['img'], np.full((8, 8, 3), 99))


def test_tiny_imagenet_as_its_archive_has_it(tmp_path):
    root = tmp_path / 'tiny-imagenet'
    with pytest.raises(FileNotFoundError, match='tiny-imagenet-200.zip.* && mv'):
        TinyImageNet(data_root=str(root))
    for wnid, grey in (('n02', 20), ('n01', 90)):
        folder = root / 'train' / wnid / 'images'
        folder.mkdir(parents=True)
        Image.new('L', (64, 64), grey).save(folder / f'{wnid}_0.JPEG')
        (root / 'train' / wnid / f'{wnid}_boxes.txt').write_text('0 0 9 9')
    train = TinyImageNet(data_root=str(root))
    assert train.metainfo['classes'] == ('n01', 'n02')
    assert [(each['gt_label'], each['img'][0, 0, 0]) for each in train] == [(0, 90), (1, 20)]
    folder = root / 'val' / 'images'
    folder.mkdir(parents=True)
    for i, grey in enumerate((90, 20, 90)):
        Image.new('RGB', (64, 64), (grey,) * 3).save(folder / f'val_{i}.JPEG')
    names = ('n01', 'n02', 'n01')
    (root / 'val' / 'val_annotations.txt').write_text(
        '\n'.join(f'val_{i}.JPEG\t{name}\t0\t32\t44\t62' for i, name in enumerate(names))
    )
    val = TinyImageNet(data_root=str(root), split='val')
    assert val.metainfo['classes'] == ('n01', 'n02')
    assert val.get_gt_labels().tolist() == [0, 1, 0]
    annotations = root / 'val' / 'val_annotations.txt'  # mended; the images are kept
    annotations.write_text(annotations.read_text().replace('n02', 'n03'))
    mended = TinyImageNet(data_root=str(root), split='val')
    assert mended.metainfo['classes'] == ('n01', 'n03')
    for i, name in enumerate(names):  # as a script makes class folders of it
        (root / 'val' / name).mkdir(exist_ok=True)
        (folder / f'val_{i}.JPEG').rename(root / 'val' / name / f'val_{i}.JPEG')
    folder.rmdir()
    moved = TinyImageNet(data_root=str(root), split='val')
    assert moved.metainfo['classes'] == ('n01', 'n02') and len(moved) == 3


def test_any_folder_is_cut_to_squares(tmp_path):
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (40, 60, 3), np.uint8)
    (tmp_path / 'b' / 'deep').mkdir(parents=True)
    Image.fromarray(wide).save(tmp_path / 'b' / 'deep' / 'wide.png')
    Image.fromarray(wide).save(tmp_path / 'loose.png')
    Image.new('RGB', (10, 30), (250, 0, 0)).save(tmp_path / 'b' / 'high.png')
    (tmp_path / 'notes.txt').write_text('no image')
    root = str(tmp_path)
    data = InMemoryFolder(root, size=20, with_label=True)
    assert data.images.shape == (3, 20, 20, 3) and data.metainfo['classes'] == ('b',)
    assert [each.get('gt_label') for each in data] == [0, 0, None]
    # PIL's antialiased resize of the middle 40 x 40.
    expected = Image.fromarray(wide[:, 10:50]).resize((20, 20), Image.Resampling.BILINEAR)
    difference = data[0]['img'][..., ::-1].astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 1
    assert data[1]['img'][10, 10].tolist() == [0, 0, 250]
    assert all('gt_label' not in each for each in InMemoryFolder(root, size=20))
    with pytest.raises(ValueError, match='1 of 3 images.*InMemoryFolder.* with size='):
        InMemoryFolder(root)
    with pytest.raises(FileNotFoundError, match='there is no folder .*nowhere'):
        InMemoryFolder(str(tmp_path / 'nowhere'))


def test_what_does_not_fit_is_said_in_gib(tmp_path, monkeypatch):
    write_folders(tmp_path)
    monkeypatch.setattr('simclr_mm.datasets.decoded_files.free_memory', lambda: 2**30)
    with pytest.raises(ValueError, match='take 4.50 GiB, but 1.00 GiB of memory'):
        InMemoryFolder(str(tmp_path / 'train'), size=2**14)


def test_free_memory_is_what_the_system_says():
    assert 2**20 < free_memory() < 2**50


@pytest.mark.slow
def test_cifar10_as_jpeg_files(cifar10):
    data = CIFAR10(data_root=str(cifar10), split='test')
    assert data.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(data.get_gt_labels()).tolist() == [1000] * 10
    assert data.metainfo['classes'][:2] == ('airplane', 'automobile')


def test_links_that_lead_nowhere_and_hidden_names_are_left_out(tmp_path):
    write_folders(tmp_path)
    (tmp_path / 'train' / 'a' / 'gone.png').symlink_to('nothing.png')
    (tmp_path / 'train' / '.trash').mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'train' / '.trash' / '0.png')
    data = InMemoryFolder(str(tmp_path / 'train'), with_label=True)
    assert data.get_gt_labels().tolist() == [0, 0, 0, 1, 1, 1]
    assert data.metainfo['classes'] == ('a', 'b')
    # The folder that keeps the decoded images is no class the next time.
    assert (tmp_path / 'train' / '.simclr_mm_cache').is_dir()
    again = InMemoryFolder(str(tmp_path / 'train'), with_label=True)
    assert again.metainfo['classes'] == ('a', 'b') and len(again) == 6


def test_all_broken_files_are_counted(tmp_path):
    write_folders(tmp_path)
    files = sorted((tmp_path / 'train').glob('*/*.png'))
    for file in files[:5]:
        file.write_bytes(b'broken')
    with pytest.raises(UserError, match='5 of 6 images cannot .*a/0.png.*b/1.png'):
        InMemoryFolder(str(tmp_path / 'train'))
    files[5].write_bytes(b'broken')
    with pytest.raises(UserError, match='none of 6 images can be read; the last: .*b/2.png'):
        InMemoryFolder(str(tmp_path / 'train'))
    with pytest.raises(UserError, match=r'6 of 6 images .*a/0.png.*b/1.png.* \.\.\. and 1 more'):
        InMemoryFolder(str(tmp_path / 'train'), size=4)


def test_the_readers_in_memory_keep_the_rule(tmp_path):
    """16 bits, transparency and orientation, as tests/transforms/test_to_rgb.py says."""
    (tmp_path / 'a').mkdir()
    cv2.imwrite(str(tmp_path / 'a' / '0.png'), np.full((8, 8), 51200, np.uint16))
    Image.new('RGBA', (8, 8), (0, 0, 0, 0)).save(tmp_path / 'a' / '1.png')
    data = InMemoryFolder(str(tmp_path))
    assert [data[i]['img'].min() for i in range(2)] == [200, 255]


def test_an_array_in_a_file(tmp_path):
    red = np.zeros((2, 4, 6, 3), np.uint8)
    red[1, ..., 0] = 250  # RGB
    np.save(tmp_path / 'a.npy', red)
    data = ArrayFile(str(tmp_path / 'a.npy'))
    assert [each['img'].tolist() for each in data][1][0][0] == [0, 0, 250]  # BGR
    assert len(data) == 2 and 'gt_label' not in data[0]


def test_a_file_without_images(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no file .*a.npy'):
        ArrayFile(str(tmp_path / 'a.npy'))
    (tmp_path / 'a.npy').write_bytes(b'no array')
    with pytest.raises(UserError, match='a.npy is no .npy file'):
        ArrayFile(str(tmp_path / 'a.npy'))
    np.save(tmp_path / 'a.npy', np.zeros((2, 4, 6)))
    with pytest.raises(UserError, match=r'a.npy: images are .*got \(2, 4, 6\) float64'):
        ArrayFile(str(tmp_path / 'a.npy'))


def test_images_that_change_while_they_are_read_are_not_kept(tmp_path, monkeypatch):
    for i in range(3):
        path = tmp_path / 'train' / 'a' / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4, 4)).save(path)

    def read(paths, size):
        images = read_images(paths, size)
        Image.new('RGB', (4, 4), 'red').save(paths[0])  # by whoever copies them here
        os.utime(paths[0], (1, 1))
        return images

    monkeypatch.setattr('simclr_mm.datasets.arrays.read_images', read)
    with pytest.raises(UserError, match='images changed while they were read: wait'):
        CIFAR10(data_root=str(tmp_path), split='train')
    assert not list(tmp_path.rglob('*.np[yz]'))
    monkeypatch.undo()
    data = CIFAR10(data_root=str(tmp_path), split='train')
    assert data[0]['img'][0, 0].tolist() == [0, 0, 255]


def test_what_a_killed_process_left_in_the_cache_is_removed(tmp_path):
    Image.new('RGB', (4, 4)).save(_made(tmp_path / 'train' / 'a') / '0.png')
    left = _made(tmp_path / '.simclr_mm_cache') / '.cifar10-train-0.npy.0123.partial'
    left.touch()
    os.utime(left, (1, 1))
    CIFAR10(data_root=str(tmp_path), split='train')
    assert not left.exists()


def _made(folder):
    folder.mkdir(parents=True)
    return folder
