"""Every form of a batch becomes one normalised RGB tensor."""

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmpretrain.datasets.transforms import MultiView, PackInputs
from mmpretrain.structures import DataSample
from PIL import Image

from simclr_mm.datasets.sampler import SampleIndex
from simclr_mm.errors import UserError
from simclr_mm.models.views_preprocessor import ViewsPreprocessor
from simclr_mm.registry import MODELS
from simclr_mm.transforms import LoadImageFromFile, TwoViews

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@pytest.fixture
def preprocessor():
    return MODELS.build(dict(type='simclr_mm.ViewsPreprocessor', mean=MEAN, std=STD))


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (4, 3, 3, 8, 8), generator=generator, dtype=torch.uint8)


def by_hand(images, mean=MEAN, std=STD):
    """BGR uint8 (..., 3, S, S) to normalised RGB in float64."""
    rgb = images.numpy()[..., ::-1, :, :].astype(np.float64)
    return (rgb - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))


@pytest.mark.portable
def test_all_four_forms_give_the_same_numbers(preprocessor, views):
    expected = by_hand(views)
    for inputs in (views, list(views.unbind(1))):  # (n, V, 3, S, S), V of (n, 3, S, S)
        out = preprocessor(dict(inputs=inputs))
        assert out['data_samples'] is None
        assert out['inputs'].dtype == torch.float32
        assert out['inputs'].shape == (4, 3, 3, 8, 8)
        np.testing.assert_allclose(out['inputs'], expected, rtol=0, atol=1e-6)
    images = views[:, 0]
    for inputs in (images, list(images)):  # (n, 3, S, S), n of (3, S, S)
        out = preprocessor(dict(inputs=inputs))['inputs']
        assert out.shape == (4, 3, 8, 8)
        np.testing.assert_allclose(out, expected[:, 0], rtol=0, atol=1e-6)


def test_batch_is_not_written_to(preprocessor, views):
    before = views.clone()
    preprocessor(dict(inputs=views))
    assert torch.equal(views, before)


def test_data_samples_come_through(preprocessor, views):
    samples = [DataSample().set_gt_label(i) for i in range(4)]
    out = preprocessor(dict(inputs=views, data_samples=samples), training=True)
    assert [int(sample.gt_label) for sample in out['data_samples']] == [0, 1, 2, 3]


def test_rgb_data_is_left_in_order(views):
    plain = ViewsPreprocessor([0, 0, 0], [1, 1, 1], to_rgb=False)
    assert torch.equal(plain(dict(inputs=views))['inputs'], views.float())


def test_no_keys_in_the_checkpoint_and_buffers_follow_the_model(preprocessor):
    assert preprocessor.state_dict() == {}
    assert preprocessor.mean.shape == (3, 1, 1)
    moved = ViewsPreprocessor(MEAN, STD).to('meta')
    assert moved.mean.device.type == moved.std.device.type == 'meta'


@pytest.mark.portable
def test_a_red_file_is_red_in_every_way_in(tmp_path, preprocessor):
    Image.new('RGB', (20, 16), (255, 0, 0)).save(tmp_path / 'red.png')
    expected = torch.tensor([(255 - MEAN[0]) / STD[0], -MEAN[1] / STD[1], -MEAN[2] / STD[2]])

    def load():
        return LoadImageFromFile()(dict(img_path=str(tmp_path / 'red.png')))

    ours = PackInputs()(TwoViews(8)(load()))
    theirs = PackInputs()(MultiView([[]], [2])(load()))  # mmpretrain's list of views
    plain = PackInputs()(load())
    for sample, collate, shape in (
        (ours, default_collate, (2, 2, 3, 8, 8)),
        (theirs, default_collate, (2, 2, 3, 16, 20)),
        (plain, default_collate, (2, 3, 16, 20)),
        (plain, pseudo_collate, (2, 3, 16, 20)),
    ):
        out = preprocessor(collate([sample, sample]))
        assert out['inputs'].shape == shape
        assert torch.allclose(out['inputs'], expected.view(3, 1, 1).expand(shape), atol=1e-5)
        assert len(out['data_samples']) == 2


def test_upstreams_list_of_views_is_one_batch():
    """mmpretrain's SelfSupDataPreprocessor gives V tensors; the loss is the same."""
    small = dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8)
    model = MODELS.build(dict(type='simclr_mm.SimCLR', backbone=small)).eval()
    views = torch.rand(4, 2, 3, 16, 16)
    one, listed = (model(inputs, mode='loss')['loss'] for inputs in (views, [*views.unbind(1)]))
    assert torch.equal(one, listed)
    with pytest.raises(ValueError, match='differ in size.*simclr_mm.ViewsPreprocessor'):
        model([views[:, 0], views[:, 1, :, :8]], mode='loss')


@pytest.fixture(scope='module')
def photo_batches():
    """The same views of four noisy images, augmented by worker and left to device."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 40, 50, 3), np.uint8)
    transforms = [dict(type='simclr_mm.ColorDistortion'), dict(type='simclr_mm.RandomGaussianBlur')]

    def batch(augment):
        views = TwoViews(32, num_views=3, transforms=transforms, augment=augment)
        return default_collate(
            [
                PackInputs()(views(dict(img=img, sample_idx=SampleIndex(index))))
                for index, img in enumerate(images)
            ]
        )

    return batch('worker'), batch('device')


@pytest.mark.portable
@pytest.mark.parametrize('to_rgb', [True, False])
def test_augments_what_is_left_to_it_and_nothing_twice(photo_batches, to_rgb):
    levels = ViewsPreprocessor([0, 0, 0], [1, 1, 1], to_rgb)
    by_worker, by_us = (levels(batch, training=True) for batch in photo_batches)
    assert by_us['inputs'].shape == (4, 3, 3, 32, 32)
    assert by_us['inputs'].dtype == torch.float32
    assert len(by_us['data_samples']) == 4
    difference = (by_us['inputs'] - by_worker['inputs']).abs()
    assert difference.mean() < 0.05  # grey levels
    expected = photo_batches[0]['inputs'].float()
    assert torch.equal(by_worker['inputs'], expected.flip(2) if to_rgb else expected)


def test_normalises_in_the_pass_that_makes_floats(photo_batches, preprocessor):
    levels = ViewsPreprocessor([0, 0, 0], [1, 1, 1])(photo_batches[1])['inputs']
    mean, std = (np.reshape(value, (3, 1, 1)) for value in (MEAN, STD))
    expected = (levels.double().numpy() - mean) / std
    ours = preprocessor(photo_batches[1])['inputs']
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_autocast_costs_no_accuracy(photo_batches, preprocessor):
    expected = preprocessor(photo_batches[1])['inputs']
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(preprocessor(photo_batches[1])['inputs'], expected)


def test_images_are_channels_last(photo_batches, preprocessor):
    for batch in photo_batches:
        images = preprocessor(batch)['inputs'].flatten(0, 1)
        assert images.is_contiguous(memory_format=torch.channels_last)
    plain = preprocessor(dict(inputs=photo_batches[0]['inputs'][:, 0]))['inputs']
    assert plain.is_contiguous(memory_format=torch.channels_last)


def test_crops_without_what_was_drawn_are_refused(photo_batches, preprocessor):
    crops, boxes, steps = photo_batches[1]['inputs']
    for inputs in (crops, [crops, boxes, steps.float()], [crops, steps]):
        with pytest.raises(ValueError, match='ViewsPreprocessor: inputs must be uint8'):
            preprocessor(dict(inputs=inputs))


@pytest.mark.parametrize(
    'inputs,message',
    [
        (torch.rand(2, 2, 3, 8, 8), r'got torch.float32 of shape \(2, 2, 3, 8, 8\)'),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r'shape \(3, 8, 8\)'),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), r'shape \(2, 8, 8, 3\)'),
        (
            [torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(3, 8, 9, dtype=torch.uint8)],
            'a list of 2: .*9.*TwoViews',
        ),
        ([[torch.zeros(3, 8, 8, dtype=torch.uint8)] * 2] * 2, 'a list of 2: a list of 2'),
        ([], 'a list of 0'),
        (np.zeros((2, 3, 8, 8), np.uint8), 'got ndarray'),
    ],
)
def test_anything_else_is_named(preprocessor, inputs, message):
    with pytest.raises(ValueError, match=f'ViewsPreprocessor: inputs must be .*{message}'):
        preprocessor(dict(inputs=inputs))


@pytest.mark.parametrize(
    'mean,std,message',
    [
        ([1, 2], STD, r'mean and std must be a number for each channel, got \[1, 2\] and'),
        ([], [], 'a number for each channel'),
        ([1, 2], [3, 4], 'to_rgb reverses three channels, but mean and std have 2: write to_rgb=F'),
        (MEAN, [1, 0, 1], 'std must be above 0'),
    ],
)
def test_bad_arguments(mean, std, message):
    with pytest.raises(ValueError, match=message):
        ViewsPreprocessor(mean, std)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
def test_bands_keep_their_order_and_their_last_digits(dtype):
    """Differences of 1 in values of 60,000, as of bits that 8 bits cannot hold."""
    largest = 255 if dtype == torch.uint8 else 60_000
    rng = np.random.default_rng(0)
    values = largest - rng.integers(0, 8, (3, 2, 5, 6, 6))
    mean, std = largest - np.arange(5.0), np.arange(1.0, 6.0)
    inputs = torch.from_numpy(values).to(dtype)
    before = inputs.clone()
    preprocessor = ViewsPreprocessor(mean.tolist(), std.tolist(), to_rgb=False)
    out = preprocessor(dict(inputs=inputs))['inputs']
    expected = (values - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)
    assert torch.equal(inputs, before)
    one = ViewsPreprocessor(mean[:1], std[:1], to_rgb=False)
    single = inputs[:, 0, :1].contiguous()
    np.testing.assert_allclose(one(dict(inputs=single))['inputs'], expected[:, 0, :1], atol=1e-6)
    assert torch.equal(single, before[:, 0, :1])
    message = r'with 4 channel\(s\), as mean and std have.*\(3, 2, 5, 6, 6\)'
    with pytest.raises(UserError, match=message):
        ViewsPreprocessor([1] * 4, [1] * 4, to_rgb=False)(dict(inputs=inputs))


def test_views_of_each_image_in_a_list(preprocessor, views):
    """As a loader without a collate function gives them: n tensors (V, C, S, S)."""
    samples = [DataSample() for _ in views]
    out = preprocessor(dict(inputs=list(views), data_samples=samples))['inputs']
    np.testing.assert_allclose(out, by_hand(views), rtol=0, atol=1e-6)
    out = preprocessor(dict(inputs=list(views.unbind(1)), data_samples=samples))['inputs']
    np.testing.assert_allclose(out, by_hand(views), rtol=0, atol=1e-6)
