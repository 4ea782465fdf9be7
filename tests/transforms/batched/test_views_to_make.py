"""Views that the device makes from what TwoViews drew are those that a worker makes."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import default_collate, pseudo_collate
from mmpretrain.datasets.transforms import PackInputs
from torch.utils.data import DataLoader

from simclr_mm.datasets.sampler import SampleIndex
from simclr_mm.models import ViewsPreprocessor
from simclr_mm.registry import TRANSFORMS
from simclr_mm.transforms import ColorJitter, RandomGaussianNoise, TwoViews
from simclr_mm.transforms.bands import BandTransform
from simclr_mm.transforms.base import DeviceTransform
from simclr_mm.transforms.batched.views_to_make import STEP_WIDTH, TWINS, ViewsToMake, augment
from simclr_mm.transforms.random_streams import batch_streams, view_streams

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


def batch(dataset, workers=0, collate=default_collate):
    loader = DataLoader(dataset, len(dataset), num_workers=workers, collate_fn=collate)
    return ViewsToMake.restored(next(iter(loader))['inputs'])


def on_device(drawn, device='cpu'):
    """Crops and numbers, (n, V, 3, S, S) BGR."""
    images = drawn.images.flatten(0, 1).flip(-1).permute(0, 3, 1, 2).contiguous().to(device)
    return drawn.make(images).flip(1).cpu().unflatten(0, drawn.steps.shape[:2])


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
    exact = int(cv2.__version__.split('.')[0]) >= 5  # as in test_batched_geometric
    assert differences.max() < (0.1 if exact else 0.5)  # grey levels, of the worst view


def test_each_view_may_have_its_own_pipeline(photos):
    transforms = [[COLOR, BLUR], [], [CUTOUT]]
    expected = batch(Photos(photos, 32, transforms, 'worker', num_views=3))
    inputs = batch(Photos(photos, 32, transforms, 'device', num_views=3))
    assert inputs.steps.shape == (12, 3, 3, STEP_WIDTH)
    ours = on_device(inputs)
    assert torch.equal(ours[:, 1:], expected[:, 1:])
    assert (ours[:, 0].float() - expected[:, 0].float()).abs().mean() < 0.1


def test_crops_alone(photos):
    expected = batch(Photos(photos, 32, [], 'worker'))
    ours = on_device(batch(Photos(photos, 32, [], 'device'), workers=1))
    assert torch.equal(ours, expected)


def test_the_carrier_survives_workers_and_both_collate_functions(photos):
    dataset = Photos(photos, 32, [COLOR, BLUR], 'device')
    here = batch(dataset)
    assert type(here) is ViewsToMake and len(here.images) == 12
    for there in (batch(dataset, workers=2), batch(dataset, collate=pseudo_collate)):
        assert type(there) is ViewsToMake
        assert all(map(torch.equal, here, there))
    images = torch.zeros(4, 2, 3, 8, 8, dtype=torch.uint8)
    for other in (images, list(images), [images] * 3, [images, images.double()], []):
        assert ViewsToMake.restored(other) is other  # of mmpretrain's MultiView


def test_a_row_of_numbers_by_hand():
    jitter = ColorJitter(0.8, 0.8, 0, 0.2)
    params = dict(hue=-0.1, contrast=1.2, saturation=1.0, brightness=0.7)
    # Factors by name, then the order: hue, contrast, saturation, brightness.
    assert jitter.encode(params) == [0.7, 1.2, 1.0, -0.1, 3, 1, 2, 0]
    noise = RandomGaussianNoise().encode(dict(std=2.5, seed=2**32 - 1))
    assert noise == [2.5, 2**32 - 1]


EVERY = [
    dict(type='ColorJitter', brightness=0.8, contrast=0.8, saturation=0, hue=0.2),
    dict(type='RandomGrayscale'),
    dict(type='RandomGaussianBlur'),
    dict(type='RandomRotation'),
    dict(type='RandomRotation', degrees=30.0),
    dict(type='RandomCutout'),
    dict(type='RandomSobel'),
    dict(type='RandomGaussianNoise'),
    dict(type='RandomCropAndFlip'),
    dict(type='BandJitter', std=[30.0, 2.5], gain=0.1),
    dict(type='BandNoise', std=[30.0, 2.5]),
    dict(type='BandDrop', fill=[7.0, -1.5]),
]


def test_every_transform_is_in_the_list():
    known = [*DeviceTransform.__subclasses__(), *BandTransform.__subclasses__()]
    ours = {cls for cls in known if 'simclr_mm.' in cls.__module__} - {BandTransform}
    assert {cfg['type'] for cfg in EVERY} == {cls.__name__ for cls in ours}
    assert {cls.code for cls in ours} <= set(TWINS)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.sampled_from(EVERY), st.integers(), st.integers(0, 2**40), st.integers(1, 300))
def test_numbers_say_what_was_drawn(cfg, seed, image, side):
    """Encoded and decoded, the parameters of an image alone and of one in a batch."""
    transform = TRANSFORMS.build(cfg)
    params = transform.draw(side, side, view_streams(seed, 0, image, 0, 1)[0])
    numbers = np.array(transform.encode(params), np.float64)
    assert len(numbers) == len(transform.columns) < STEP_WIDTH
    decoded = transform.decode(numbers.tolist())
    assert list(decoded.items()) == list(params.items())  # a jitter's in their order
    assert {k: type(v) for k, v in decoded.items() if transform.columns.get(k) is int} == {
        k: int for k, kind in transform.columns.items() if kind is int
    }
    (streams,) = batch_streams([seed] * 2, [0] * 2, [image + 1, image], 0, 1)
    together = transform.draw_batch(side, side, streams)
    assert [np.broadcast_to(column, 2)[1] for column in together] == numbers.tolist()


class Darken(DeviceTransform):
    """A user's own, with more numbers than any of ours."""

    columns = {name: int for name in 'abcdefghijk'}

    def __init__(self, prob=1.0):
        super().__init__(prob)

    def draw(self, height, width, rng):
        return {name: rng.integers(9) for name in self.columns}

    def paint(self, img, params):
        return img - np.minimum(img, sum(params.values())).astype(np.uint8)

    @staticmethod
    def paint_batch(images, *numbers):
        down = torch.stack(numbers).sum(0)[:, None, None, None]
        return (images - down).clamp(0).to(torch.uint8)


class Lighter(Darken):
    def draw(self, height, width, rng):
        return {name: 0 if rng.random() < 0.5 else 1 for name in self.columns}


@pytest.mark.parametrize('prob', [1.0, 0.5])
def test_a_users_own_transform_runs_on_the_device(photos, prob):
    transforms = [COLOR, dict(type=Darken, prob=prob)]
    expected = batch(Photos(photos, 32, [dict(type=Darken, prob=prob)], 'worker'))
    inputs = batch(Photos(photos, 32, [dict(type=Darken, prob=prob)], 'device'))
    assert inputs.steps.shape == (12, 2, 1, 12)
    assert torch.equal(on_device(inputs), expected)
    images = np.stack([cv2.resize(photo, (40, 40)) for photo in photos])
    indices = [SampleIndex(i, 1, 2) for i in range(12)]
    made = [
        ViewsPreprocessor([0.0] * 3, [1.0] * 3)(
            dict(inputs=TwoViews(32, transforms=transforms, augment=side).batch(images, indices))
        )['inputs']
        for side in ('worker', 'device')
    ]
    assert (made[0] - made[1]).abs().mean() < 0.5


def test_a_draw_with_branches_gives_a_batch_the_numbers_of_its_images(photos):
    images = np.stack([cv2.resize(photo, (40, 40)) for photo in photos])
    indices = [SampleIndex(i, 1, 2) for i in range(12)]
    views = TwoViews(32, transforms=[dict(type=Lighter, prob=0.7), COLOR])
    made = views.batch(images, indices)
    drawn = []
    for img, index, expected in zip(images, indices, made):
        single = views(dict(img=img, sample_idx=index))
        assert np.array_equal(single['img'], expected)
        drawn += [view['Lighter'] for view in single['view_params']]
    assert len({tuple(params.values()) for params in drawn if params}) > 5


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
        augment(images, inputs.steps.flatten(0, 1))
    finally:
        torch.cuda.set_sync_debug_mode('default')
