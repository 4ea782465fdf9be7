"""Whole views: pixels against torchvision, randomness as a function of four numbers."""

import math
import pickle
import random

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import default_collate
from mmpretrain.datasets.transforms import PackInputs
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import functional as F

from simclr_mm.datasets.sampler import SampleIndex
from simclr_mm.registry import TRANSFORMS
from simclr_mm.transforms import RandomGaussianBlur, TwoViews, views

COLOR = dict(type='simclr_mm.ColorDistortion')
BLUR = dict(type='simclr_mm.RandomGaussianBlur')


@pytest.fixture(scope='module')
def photos(imagenet_sample):
    files = sorted(imagenet_sample.glob('train/*/*.JPEG'))[:12]
    return [cv2.imread(str(file)) for file in files]


def make(transform, img, index=3, seed=0, epoch=0):
    return transform(dict(img=img, sample_idx=SampleIndex(index, seed, epoch)))


def torchvision_view(img, params, size):
    """The same parameters through torchvision's functions on a PIL image."""
    image = Image.fromarray(cv2.cvtColor(img, cv2.COLOR_BGR2RGB))
    image = F.resized_crop(image, *params['crop'], [size, size])
    if params['flip']:
        image = F.hflip(image)
    for name, factor in (params['ColorJitter'] or {}).items():
        image = getattr(F, f'adjust_{name}')(image, factor)
    if params['RandomGrayscale'] is not None:
        image = F.to_grayscale(image, 3)
    blur = params['RandomGaussianBlur']
    if blur is not None:
        image = F.gaussian_blur(image, blur['kernel'], blur['sigma'])
    return np.asarray(image)[..., ::-1].transpose(2, 0, 1)  # (3, S, S) BGR


@pytest.mark.portable
def test_whole_views_are_those_of_torchvision(photos):
    transform = TwoViews(224, transforms=[COLOR, BLUR])
    differences = []
    for index, img in enumerate(photos):
        results = make(transform, img, index)
        assert results['img'].shape == (2, 3, 224, 224)
        assert results['img'].dtype == np.uint8
        for view, params in zip(results['img'], results['view_params']):
            theirs = torchvision_view(img, params, 224)
            differences.append(np.abs(view.astype(int) - theirs).mean())
    assert np.mean(differences) < 0.5  # grey levels
    assert max(differences) < 1.5


def test_a_flip_that_is_off(photos):
    never = TwoViews(4, flip_prob=0)
    assert not any(make(never, photos[0], i)['view_params'][0]['flip'] for i in range(50))


@pytest.mark.portable
def test_views_are_a_function_of_seed_epoch_image_and_view(photos):
    img = photos[0]
    first = make(TwoViews(32, transforms=[COLOR, BLUR]), img)['img']
    other = TwoViews(32, transforms=[COLOR, BLUR])
    for index in range(3):  # another order of calls, another state of the globals
        make(other, img, index)
    np.random.seed(7)
    random.seed(7)
    torch.manual_seed(7)
    assert np.array_equal(make(other, img)['img'], first)
    variants = [
        first[0],
        first[1],
        make(other, img, epoch=1)['img'][0],
        make(other, img, seed=1)['img'][0],
        make(other, img, index=4)['img'][0],
    ]
    assert len({view.tobytes() for view in variants}) == 5


def test_more_views_keep_the_first_ones(photos):
    two = make(TwoViews(16, transforms=[COLOR]), photos[0])['img']
    four = make(TwoViews(16, num_views=4, transforms=[COLOR]), photos[0])['img']
    assert np.array_equal(four[:2], two)


class _Indexed:
    def __init__(self, images, transform):
        self.images, self.transform = images, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return make(self.transform, self.images[index], index)['img']


class Foreign(BaseTransform):
    """Noise from every global generator that transforms elsewhere draw from."""

    def transform(self, results):
        add = random.randrange(64) + np.random.randint(64) + int(torch.randint(64, ()))
        results['img'] = cv2.add(results['img'], np.full(3, add, float))
        return results


@pytest.mark.parametrize('transforms', [[COLOR, BLUR], [COLOR, dict(type=Foreign)]])
def test_workers_make_the_same_views_as_the_main_process(photos, transforms):
    images = [cv2.resize(img, (40, 40)) for img in photos]
    dataset = _Indexed(images, TwoViews(32, transforms=transforms))
    here = torch.stack([torch.from_numpy(dataset[i]) for i in range(len(images))])
    for workers in (1, 2):
        loader = DataLoader(dataset, batch_size=3, num_workers=workers)
        assert torch.equal(torch.cat(list(loader)), here)


def test_foreign_transforms_are_seeded_and_leave_the_globals_alone(photos):
    transform = TwoViews(32, transforms=[dict(type=Foreign)])
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    first = make(transform, photos[0])['img']
    after = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert after == (random.random(), np.random.rand(), float(torch.rand(())))
    assert np.array_equal(make(transform, photos[0])['img'], first)
    flat = np.zeros((8, 8, 3), np.uint8)
    added = {view.tobytes() for i in range(10) for view in make(transform, flat, i)['img']}
    assert len(added) > 10  # of 20 views with some of 190 values


def test_one_warning_for_plain_indices_and_none_for_none(photos, monkeypatch):
    messages = []
    monkeypatch.setattr(views, 'print_log', lambda text, **_: messages.append(text))
    transform = TwoViews(16)
    transform(dict(img=photos[0]))
    assert messages == []
    drawn = [transform(dict(img=photos[0], sample_idx=3))['img'] for _ in range(2)]
    assert len(messages) == 1 and 'simclr_mm.ResumableSampler' in messages[0]
    assert not np.array_equal(*drawn)


def test_a_pipeline_for_each_view(photos):
    gray = dict(type='simclr_mm.RandomGrayscale', prob=1)
    cut = dict(type='simclr_mm.RandomCutout')
    transform = TwoViews(32, num_views=3, transforms=[[gray], [], [cut, gray]])
    results = make(transform, photos[0])
    first, second, third = results['img']  # (3, S, S) each
    assert (first[0] == first[1]).all() and (third[0] == third[2]).all()
    assert not (second[0] == second[1]).all()
    assert [set(params) - {'crop', 'flip'} for params in results['view_params']] == [
        {'RandomGrayscale'},
        set(),
        {'RandomCutout', 'RandomGrayscale'},
    ]


def test_decoded_image_and_other_keys_are_left_alone(photos):
    img = photos[0].copy()
    results = TwoViews(32, transforms=[COLOR])(
        dict(img=img, sample_idx=SampleIndex(0), img_path='a.jpg', gt_label=5)
    )
    assert np.array_equal(img, photos[0])
    assert (results['img_path'], results['gt_label']) == ('a.jpg', 5)
    assert results['img_shape'] == (32, 32)
    assert 'rng' not in results and 'view_params_one' not in results


@pytest.mark.portable
def test_packs_and_collates_into_one_tensor(photos):
    transform = TRANSFORMS.build(dict(type='simclr_mm.TwoViews', size=24, num_views=3))
    batch = default_collate(
        [PackInputs()(make(transform, img, i)) for i, img in enumerate(photos[:4])]
    )
    assert batch['inputs'].shape == (4, 3, 3, 24, 24)
    assert batch['inputs'].dtype == torch.uint8
    expected = make(transform, photos[2], 2)['img']
    assert np.array_equal(batch['inputs'][2].numpy(), expected)


@pytest.mark.parametrize('shape', [(1, 1), (50, 1), (3, 200), (10, 10)])
def test_images_smaller_than_the_views(shape):
    img = np.full((*shape, 3), (10, 20, 30), np.uint8)
    made = make(TwoViews(64, transforms=[BLUR]), img)['img']
    assert (made == np.array([10, 20, 30]).reshape(3, 1, 1)).all()


@pytest.mark.portable
def test_device_augmentation_sends_crops_and_what_was_drawn(photos):
    transforms = [COLOR, BLUR]
    worker = TwoViews(32, num_views=3, transforms=transforms)
    device = TwoViews(32, num_views=3, transforms=transforms, augment='device')
    bare = TwoViews(32, num_views=3)
    left = make(device, photos[0])
    crops, boxes, steps = left['img']
    assert left['view_params'] == make(worker, photos[0])['view_params']
    assert left['img_shape'] == (32, 32)
    assert np.array_equal(crops.transpose(0, 3, 1, 2), make(bare, photos[0])['img'])
    assert boxes.shape == (3, 7) and boxes.dtype == torch.float64
    assert steps.shape == (3, 3, 9) and steps.dtype == torch.float64
    for row, params in zip(steps, left['view_params']):
        for step, name in zip(row, ('ColorJitter', 'RandomGrayscale', 'RandomGaussianBlur')):
            assert bool(step[0]) == (params[name] is not None)
        if params['RandomGaussianBlur'] is not None:
            assert float(row[2, 1]) == params['RandomGaussianBlur']['sigma']


@pytest.mark.parametrize('gpu', [False, True])
def test_auto_is_the_device_where_there_is_a_gpu(monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    assert TwoViews(8, transforms=[COLOR], augment='auto').on_device == gpu
    assert not TwoViews(8, transforms=[COLOR]).on_device
    chosen = TwoViews(8, transforms=[COLOR], augment='auto')
    # Workers that are started afresh may see another machine; the choice is made.
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: not gpu)
    assert pickle.loads(pickle.dumps(chosen)).on_device == gpu


class OwnBlur(RandomGaussianBlur):
    """A user's, which blurs in another way."""

    def paint(self, img, params):
        return img


@pytest.mark.parametrize(
    'others,names', [([dict(type=Foreign)], 'Foreign'), ([COLOR, dict(type=OwnBlur)], 'OwnBlur')]
)
def test_transforms_that_cannot_run_on_the_device(monkeypatch, others, names):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    messages = []
    monkeypatch.setattr(views, 'print_log', lambda text, **_: messages.append(text))
    assert not TwoViews(8, transforms=[[BLUR], others], augment='auto').on_device
    assert len(messages) == 1 and f'{names} cannot run on the device' in messages[0]
    with pytest.raises(ValueError, match=f"{names} cannot .* write augment='worker'"):
        TwoViews(8, transforms=others, augment='device')


class Shrink(BaseTransform):
    def transform(self, results):
        results['img'] = results['img'][:-1]
        return results


class ToFloat(BaseTransform):
    def transform(self, results):
        results['img'] = results['img'] / 255
        return results


class GiveUp(BaseTransform):
    def transform(self, results):
        return None


@pytest.mark.parametrize('augment', ['worker', 'device'])
@pytest.mark.parametrize('epoch, size', [(0, 8), (1, 8), (2, 12), (4, 12), (5, 16), (99, 16)])
def test_growing_views_are_those_of_the_size_of_their_epoch(photos, augment, epoch, size):
    options = dict(transforms=[COLOR, BLUR], augment=augment)
    growing = TwoViews([8, 12, 16], milestones=[2, 5], **options)
    fixed = TwoViews(size, **options)
    one, other = (make(transform, photos[0], epoch=epoch) for transform in (growing, fixed))
    assert one['img_shape'] == (size, size)
    assert one['view_params'] == other['view_params']
    images = np.stack([cv2.resize(photo, (32, 32)) for photo in photos[:3]])
    indices = [SampleIndex(place, 7, epoch) for place in range(3)]
    batches = [transform.batch(images, indices) for transform in (growing, fixed)]
    if augment == 'worker':
        assert one['img'].shape == (2, 3, size, size)
        assert np.array_equal(one['img'], other['img'])
        assert torch.equal(*batches)
    else:
        for mine, its in zip(*batches):
            assert torch.equal(mine, its)


def test_growing_views_need_to_know_the_epoch(photos):
    growing = TwoViews([8, 16], milestones=[2])
    with pytest.raises(ValueError, match='milestones need the epoch, .* write sampler='):
        growing(dict(img=photos[0], sample_idx=3))
    with pytest.raises(ValueError, match='milestones need the epoch'):
        growing.batch(np.stack(photos[:1]), [0])


def test_pipelines_must_keep_size_and_type(photos):
    with pytest.raises(ValueError, match='of view 1 made the image 31 x 32 pixels'):
        make(TwoViews(32, transforms=[[], [dict(type=Shrink)]]), photos[0])
    with pytest.raises(ValueError, match='after the transforms of view 0: .*float64'):
        make(TwoViews(32, transforms=[dict(type=ToFloat)]), photos[0])
    assert make(TwoViews(32, transforms=[dict(type=GiveUp)]), photos[0]) is None


@pytest.mark.parametrize(
    'kwargs,message',
    [
        (dict(size=0), 'size must be .* got 0: write 224'),
        (
            dict(size=(32, 32)),
            r'one fewer than the sizes, got size=\(32, 32\) with milestones=\(\)',
        ),
        (dict(size=32, milestones=[5]), 'size=32 with .*: write .* or a single size without'),
        (dict(size=[], milestones=[]), r'size=\[\] with milestones'),
        (dict(size=[16, 'x'], milestones=[1]), 'size must be .* got x: write 224'),
        (dict(size=[8, 16, 32], milestones=[5, 5]), 'must be rising'),
        (dict(size=[8, 16], milestones=[0]), 'must be rising'),
        (dict(size=8, num_views=1), 'num_views must be from 2 to 1000, got 1'),
        (dict(size=8, scale=(0, 1)), r'scale must be .* write scale=\(0.08, 1.0\)'),
        (dict(size=8, scale=(0.5, 1.5)), 'scale must be'),
        (dict(size=8, ratio=(2, 1)), 'ratio must be'),
        (dict(size=8, ratio=(1, math.inf)), 'ratio must be'),
        (dict(size=2**31), 'pixels from 1 to 16384, got 2147483648'),
        (dict(size=8, num_views=2**31), 'num_views must be from 2 to 1000'),
        (dict(size=8, flip_prob=2), 'flip_prob must be .* got 2'),
        (dict(size=8, interpolation='nearest'), "one of .*bicubic.* got 'nearest'"),
        (dict(size=8, augment='gpu'), "'worker', 'device' or 'auto', got 'gpu'"),
        (dict(size=8, transforms=[[], [], []]), '3 pipelines, but num_views is 2: write 2'),
        (dict(size=8, transforms=[[COLOR], COLOR]), 'mixes transforms and lists'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        TwoViews(**kwargs)


@pytest.mark.parametrize(
    'img,message',
    [
        (np.zeros((8, 8), np.uint8), r'TwoViews: .* shape \(8, 8\).*LoadImageFromFile'),
        (np.zeros((8, 8, 3), np.uint16), 'TwoViews: .* got uint16'),
    ],
)
def test_bad_images(img, message):
    with pytest.raises(ValueError, match=message):
        make(TwoViews(8), img)
