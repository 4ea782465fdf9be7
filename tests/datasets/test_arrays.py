import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from simclr_mm.datasets import CIFAR10, STL10, Digits


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
        map(bytes, original.astype(np.uint8)))


def test_samples_carry_labels_only_when_asked():
    assert 'gt_label' in Digits(split='test')[0]
    assert 'gt_label' not in Digits(split='test', with_label=False)[0]


@pytest.mark.parametrize('dataset', [CIFAR10, STL10])
def test_class_folders_give_bgr(tmp_path, dataset):
    write_folders(tmp_path)
    data = dataset(data_root=str(tmp_path), split='train')
    assert data.metainfo['classes'] == ('a', 'b')
    assert data[0]['img'][0, 0].tolist() == [0, 0, 250]  # red, BGR
    assert [data[i]['gt_label'] for i in range(6)] == [0, 0, 0, 1, 1, 1]


def test_torchvision_arrays_become_bgr(tmp_path, monkeypatch):

    class Fake:
        data = np.full((2, 4, 4, 3), (250, 0, 0), np.uint8)  # red, RGB
        targets, classes = [1, 0], ['a', 'b']

        def __init__(self, root, train, download):
            assert root == str(tmp_path) and train

    monkeypatch.setattr('torchvision.datasets.CIFAR10', Fake)
    data = CIFAR10(data_root=str(tmp_path), split='train')
    assert data[0]['img'][0, 0].tolist() == [0, 0, 250] and data[0]['gt_label'] == 1


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
    with pytest.raises(ValueError, match=r'1\.png is not an image'):
        CIFAR10(data_root=str(tmp_path), split='train')


@pytest.mark.slow
def test_cifar10_as_jpeg_files(cifar10):
    data = CIFAR10(data_root=str(cifar10), split='test')
    assert data.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(data.get_gt_labels()).tolist() == [1000] * 10
    assert data.metainfo['classes'][:2] == ('airplane', 'automobile')
