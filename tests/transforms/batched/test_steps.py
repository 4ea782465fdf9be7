"""Views that the device makes from what TwoViews drew are those that a worker makes."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmpretrain.datasets.transforms import PackInputs
from scipy import stats
from torch.utils.data import DataLoader
from torchvision.transforms import ColorJitter

from simclr_mm.datasets.sampler import SampleIndex
from simclr_mm.transforms import TwoViews
from simclr_mm.transforms.batched import STEP_WIDTH, augment, encode_step

COLOR = dict(type='simclr_mm.ColorDistortion')
BLUR = dict(type='simclr_mm.RandomGaussianBlur')
ROTATION = dict(type='simclr_mm.RandomRotation')
ANGLE = dict(type='simclr_mm.RandomRotation', degrees=20.0, prob=0.7)
CUTOUT = dict(type='simclr_mm.RandomCutout', ratio=0.3, prob=0.6)
SOBEL = dict(type='simclr_mm.RandomSobel', prob=0.4)
NOISE = dict(type='simclr_mm.RandomGaussianNoise', std=(0.0, 1e-6))
GRAY_ONLY = dict(type='simclr_mm.ColorJitter', brightness=0.4, contrast=0.4, saturation=0, hue=0)


class Photos:
    """What a dataset is for a DataLoader: photographs through TwoViews and PackInputs."""

    def __init__(self, images, size, transforms, side, **kwargs):
        self.images = images
        self.views = TwoViews(size, transforms=transforms, augment=side, **kwargs)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        results = dict(img=self.images[index], sample_idx=SampleIndex(index, 1, 2))
        return PackInputs()(self.views(results))


@pytest.fixture(scope='module')
def photos(imagenet_sample):
    files = sorted(imagenet_sample.glob('train/*/*.JPEG'))[:12]
    return [cv2.imread(str(file)) for file in files]


def batch(dataset, workers=0):
    loader = DataLoader(dataset, len(dataset), num_workers=workers, collate_fn=default_collate)
    return next(iter(loader))['inputs']


def on_device(inputs, device='cpu'):
    """(n, V, S, S, 3) BGR and numbers -> (n, V, 3, S, S) BGR."""
    crops, steps = inputs
    images = crops.flatten(0, 1).flip(-1).permute(0, 3, 1, 2).contiguous().to(device)
    made = augment(images, steps.flatten(0, 1)).flip(1).cpu()
    return made.unflatten(0, crops.shape[:2])


@pytest.mark.portable
@pytest.mark.parametrize(
    'size,transforms',
    [
        (224, [COLOR, BLUR]),
        (64, [ROTATION, CUTOUT, COLOR, NOISE, BLUR]),
        (64, [SOBEL, ANGLE, GRAY_ONLY]),
        (64, [CUTOUT, CUTOUT, SOBEL, ROTATION]),
    ],
)
def test_views_are_those_of_the_worker(photos, size, transforms):
    expected = batch(Photos(photos, size, transforms, 'worker'))
    ours = on_device(batch(Photos(photos, size, transforms, 'device')))
    assert ours.shape == (12, 2, 3, size, size) and ours.dtype == torch.uint8
    differences = (ours.float() - expected.float()).abs().mean((2, 3, 4))
    # Measured below 0.01; 0.5 is what both may be off from PIL.
    assert differences.max() < 0.1  # grey levels, of the worst view


def test_each_view_may_have_its_own_pipeline(photos):
    transforms = [[COLOR, BLUR], [], [CUTOUT]]
    expected = batch(Photos(photos, 32, transforms, 'worker', num_views=3))
    inputs = batch(Photos(photos, 32, transforms, 'device', num_views=3))
    assert inputs[1].shape == (12, 3, 3, STEP_WIDTH)
    ours = on_device(inputs)
    assert torch.equal(ours[:, 1:], expected[:, 1:])
    assert (ours[:, 0].float() - expected[:, 0].float()).abs().mean() < 0.1


def test_crops_alone(photos):
    expected = batch(Photos(photos, 32, [], 'worker'))
    ours = on_device(batch(Photos(photos, 32, [], 'device'), workers=1))
    assert torch.equal(ours, expected)


def test_workers_draw_the_same_numbers(photos):
    dataset = Photos(photos, 32, [COLOR, BLUR], 'device')
    here, there = batch(dataset), batch(dataset, workers=2)
    assert torch.equal(here[0], there[0]) and torch.equal(here[1], there[1])


def test_a_row_of_numbers_by_hand():
    params = dict(hue=-0.1, contrast=1.2, saturation=1.0, brightness=0.7)
    row = encode_step('ColorJitter', params)
    # Hue, contrast, nothing for a factor that a range of no width gives, brightness.
    assert row == [1, 0.7, 1.2, 1.0, -0.1, 3, 1, 4, 0]
    row = encode_step('RandomGaussianNoise', dict(std=2.5, seed=2**32 - 1))
    assert row[1:3] == [2.5, 2**32 - 1]
    assert encode_step('RandomGaussianBlur', None) == [0] * 9


def test_numbers_are_distributed_as_torchvisions():
    count = 1500
    jitter = dict(
        type='simclr_mm.ColorJitter',
        brightness=0.8,
        contrast=0.8,
        saturation=0.8,
        hue=0.2,
        prob=0.8,
    )
    views = TwoViews(1, transforms=[jitter], augment='device')
    black = np.zeros((1, 1, 3), np.uint8)
    rows = torch.cat(
        [
            views(dict(img=black, sample_idx=SampleIndex(index)))['img'][1][:, 0]
            for index in range(count)
        ]
    ).numpy()  # (2 count, STEP_WIDTH)
    applied = rows[rows[:, 0] > 0]
    assert stats.binomtest(len(applied), len(rows), 0.8).pvalue > 0.01
    torch.manual_seed(0)
    ranges = ([0.2, 1.8], [0.2, 1.8], [0.2, 1.8], [-0.2, 0.2])
    theirs = [ColorJitter.get_params(*ranges) for _ in range(count)]
    for k in range(4):
        drawn = [params[1 + k] for params in theirs]
        assert stats.ks_2samp(applied[:, 1 + k], drawn).pvalue > 0.01
    orders = {}
    for source, all_orders in ((0, applied[:, 5:]), (1, [p[0] for p in theirs])):
        for order in all_orders:
            key = tuple(int(k) for k in order)
            orders.setdefault(key, [0, 0])[source] += 1
    assert len(orders) == 24
    assert stats.chi2_contingency(np.array(list(orders.values())).T).pvalue > 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_gpu_makes_the_same_views_without_waiting(photos):
    transforms = [ROTATION, ANGLE, CUTOUT, COLOR, SOBEL, BLUR]
    inputs = batch(Photos(photos, 64, transforms, 'device'))
    expected = on_device(inputs)
    ours = on_device(inputs, 'cuda')
    assert (ours.float() - expected.float()).abs().mean() < 0.05
    images = torch.zeros(24, 3, 64, 64, dtype=torch.uint8, device='cuda')
    torch.cuda.set_sync_debug_mode('error')
    try:
        augment(images, inputs[1].flatten(0, 1))
    finally:
        torch.cuda.set_sync_debug_mode('default')
