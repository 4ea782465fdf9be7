"""A dataset in memory gives whole batches, the same whoever asks for them."""

import pickle

import cv2
import pytest
import torch
from mmengine.registry import FUNCTIONS, DefaultScope
from torch.utils.data import DataLoader

from simclr_mm.datasets import (
    Digits,
    InMemoryFolder,
    ReplaceUnreadable,
    ResumableSampler,
    SampleIndex,
    collate,
)
from simclr_mm.models import ViewsPreprocessor
from simclr_mm.transforms.batched import ViewsToMake

COLOR = [dict(type='simclr_mm.ColorDistortion')]
ALL = [
    *COLOR,
    dict(type='simclr_mm.RandomGaussianBlur'),
    dict(type='simclr_mm.RandomRotation', degrees=15.0),
    dict(type='simclr_mm.RandomCutout', prob=0.5),
    dict(type='simclr_mm.RandomSobel', prob=0.2),
    dict(type='simclr_mm.RandomCropAndFlip', prob=0.5),
]


def pipeline(size=24, augment='worker', transforms=COLOR, **kwargs):
    views = dict(type='simclr_mm.TwoViews', size=size, **kwargs)
    return [dict(views, augment=augment, transforms=transforms), dict(type='mmpretrain.PackInputs')]


def digits(batched=True, with_label=False, indices=None, **kwargs):
    return Digits(
        split='test',
        batched=batched,
        with_label=with_label,
        pipeline=pipeline(**kwargs),
        indices=indices,
    )


@pytest.fixture(scope='module')
def folder(imagenet_sample, tmp_path_factory):
    """Sixteen squares of 64 pixels, cut out of photographs."""
    root = tmp_path_factory.mktemp('squares')
    for i, file in enumerate(sorted(imagenet_sample.glob('train/*/*.JPEG'))[:16]):
        photo = cv2.resize(cv2.imread(str(file)), (96, 96))
        cv2.imwrite(str(root / f'{i:02}.png'), photo[16:80, 16:80])
    return str(root)


def places(*images, epoch=1):
    return [SampleIndex(i, seed=3, epoch=epoch) for i in images]


@pytest.mark.portable
def test_a_loader_gives_the_batches_of_getitems():
    data = digits()
    sampler = ResumableSampler(data, seed=5)
    expected = data.__getitems__(list(sampler)[:64])['inputs']
    assert expected.shape == (64, 2, 3, 24, 24) and expected.dtype == torch.uint8
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        config = FUNCTIONS.get('simclr_mm.collate')
    for workers, wrapped in ((0, data), (1, ReplaceUnreadable(data))):
        loader = DataLoader(wrapped, 64, sampler=sampler, num_workers=workers, collate_fn=config)
        batch = next(iter(loader))
        assert torch.equal(batch['inputs'], expected)
        assert batch['sample_idx'] == [int(index) for index in list(sampler)[:64]]
        assert 'data_samples' not in batch


def test_single_samples_are_those_of_the_batch():
    data = digits(with_label=True)
    batch = data.__getitems__(places(4, 9, 2))
    for k, index in enumerate(places(4, 9, 2)):
        sample = data[index]
        assert torch.equal(sample['inputs'], batch['inputs'][k])
        ours = batch['data_samples'][k]
        assert ours.gt_label == sample['data_samples'].gt_label
        assert ours.sample_idx == int(index)
    assert pickle.loads(pickle.dumps(data)).batched


def test_a_part_of_a_dataset():
    chosen = [400, 3, 77]
    part, whole = digits(indices=chosen, with_label=True), digits(with_label=True)
    batch = part.__getitems__(places(2, 0))
    labels = whole.get_gt_labels()[[77, 400]]
    assert [int(sample.gt_label) for sample in batch['data_samples']] == labels.tolist()
    same_place = part.__getitems__(places(2))['inputs']
    other_image = whole.__getitems__(places(2))['inputs']
    assert torch.equal(batch['inputs'][:1], same_place)
    assert not torch.equal(same_place, other_image)
    whole.get_subset_(chosen)  # after a batch has been made
    again = whole.__getitems__(places(2, 0))
    assert torch.equal(again['inputs'], batch['inputs'])


def test_lists_of_samples_are_collated():
    data = digits(batched=False)
    samples = data.__getitems__(places(1, 2))
    assert isinstance(samples, list)
    batch = collate(samples)
    assert batch['inputs'].shape == (2, 2, 3, 24, 24)
    assert len(batch['data_samples']) == 2
    assert torch.equal(batch['inputs'][1], data[places(2)[0]]['inputs'])


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [24, 64])
def test_the_device_makes_the_views_of_the_worker(folder, size, interpolation):
    """Crops that grow and shrink; the same drawn numbers on both sides."""
    preprocessor = ViewsPreprocessor([0.0] * 3, [1.0] * 3)
    made = {}
    for side in ('worker', 'device'):
        data = InMemoryFolder(
            folder,
            batched=True,
            pipeline=pipeline(size, side, ALL, num_views=3, interpolation=interpolation),
        )
        batch = collate(data.__getitems__(places(*range(16))))
        assert isinstance(batch['inputs'], ViewsToMake) == (side == 'device')
        made[side] = preprocessor(batch)['inputs']
    assert made['device'].shape == made['worker'].shape == (16, 3, 3, size, size)
    assert made['device'].dtype == torch.float32
    differences = (made['device'] - made['worker']).abs().mean((2, 3, 4))
    # OpenCV's enlarged crops are a fifth of a level from PIL's, and Sobel doubles it.
    assert differences.median() < 0.3 and differences.mean() < 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_gpu_makes_the_same_views_without_waiting(folder):
    data = InMemoryFolder(folder, batched=True, pipeline=pipeline(48, 'device', ALL))
    batch = data.__getitems__(places(*range(16)))
    here = ViewsPreprocessor([0.0] * 3, [1.0] * 3)
    there = ViewsPreprocessor([0.0] * 3, [1.0] * 3).cuda()
    made = there(batch)['inputs'].cpu()
    assert (made - here(batch)['inputs']).abs().mean() < 0.05
    pinned = next(iter(DataLoader(data, 16, collate_fn=collate, pin_memory=True)))
    assert isinstance(pinned['inputs'], ViewsToMake)
    assert pinned['inputs'].images.is_pinned()
    torch.cuda.set_sync_debug_mode('error')
    try:
        there(pinned)
    finally:
        torch.cuda.set_sync_debug_mode('default')


def test_what_cannot_be_batched_is_named():
    steps = pipeline()
    with pytest.raises(ValueError, match=r"got \['RandomCropAndFlip', 'TwoViews'"):
        Digits(batched=True, pipeline=[dict(type='simclr_mm.RandomCropAndFlip'), *steps])
