import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import ClassBalancedDataset, Compose, ConcatDataset, RepeatDataset
from mmengine.registry import DefaultScope
from mmpretrain.datasets import KFoldDataset
from mmpretrain.engine import SwitchRecipeHook
from mmpretrain.structures import DataSample
from PIL import Image
from torch.utils.data import ConcatDataset as TorchConcatDataset
from torch.utils.data import Subset

from simclr_mm.datasets import Digits, ImageFolder, ReplaceUnreadable, SampleIndex
from simclr_mm.transforms import TwoViews, UnreadableImage


class Half:
    """Twenty images, of which the odd ones cannot be read."""

    metainfo = dict(classes=('a',))

    def __init__(self, readable=lambda i: i % 2 == 0):
        self.readable = readable

    def __len__(self):
        return 20

    def __getitem__(self, index):
        if not self.readable(index):
            raise UnreadableImage('is truncated', f'{index}.jpg')
        return dict(inputs=int(index), data_samples=DataSample())


def test_a_readable_image_stands_in_and_the_broken_files_are_named():
    data = ReplaceUnreadable(Half())
    sample = data[SampleIndex(3, seed=1, epoch=2)]
    assert sample['inputs'] % 2 == 0
    path, reason = sample['data_samples'].unreadable[0]
    assert path == '3.jpg' and 'truncated' in reason
    assert 'unreadable' not in data[SampleIndex(4)]['data_samples']


def test_the_stand_in_is_a_function_of_seed_epoch_and_image():
    data = ReplaceUnreadable(Half())
    draws = {
        (seed, epoch): data[SampleIndex(3, seed, epoch)]['inputs']
        for seed in range(4)
        for epoch in range(4)
    }
    assert draws == {key: data[SampleIndex(3, *key)]['inputs'] for key in draws}
    assert len(set(draws.values())) > 1


def test_gives_up_when_nothing_can_be_read():
    data = ReplaceUnreadable(Half(readable=lambda i: False))
    with pytest.raises(OSError, match='100 images in a row could not be read'):
        data[SampleIndex(0)]


def test_other_errors_pass():

    def broken(index):
        raise FileExistsError('a bug')

    with pytest.raises(FileExistsError):
        ReplaceUnreadable(Half(readable=broken))[SampleIndex(0)]


def test_other_packages_transforms_are_a_function_of_seed_epoch_and_image():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        data = ReplaceUnreadable(
            dict(
                type='simclr_mm.Digits',
                pipeline=[dict(type='RandomResizedCrop', scale=16), dict(type='PackInputs')],
            )
        )
    first = data[SampleIndex(5, seed=1, epoch=2)]['inputs']
    np.random.seed(99)
    assert first.equal(data[SampleIndex(5, seed=1, epoch=2)]['inputs'])
    assert not first.equal(data[SampleIndex(5, seed=1, epoch=3)]['inputs'])


@pytest.mark.parametrize(
    'step', [dict(type='simclr_mm.RandomRotation'), dict(type='RandomResizedCrop', scale=16)]
)
def test_transforms_before_the_views_are_a_function_of_seed_epoch_and_image(step):
    views = dict(type='simclr_mm.TwoViews', size=8)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        data = ReplaceUnreadable(
            dict(type='simclr_mm.Digits', pipeline=[step, views, dict(type='PackInputs')])
        )
    first = data[SampleIndex(5, seed=1, epoch=2)]['inputs']
    np.random.seed(99)
    assert first.equal(data[SampleIndex(5, seed=1, epoch=2)]['inputs'])
    assert not first.equal(data[SampleIndex(5, seed=1, epoch=3)]['inputs'])


@pytest.mark.parametrize('place', [0, 1], ids=['before the views', 'after them'])
def test_another_image_stands_in_for_a_dropped_one(place):
    drop = DropEverySecond()
    views = dict(type='simclr_mm.TwoViews', size=[8, 12], milestones=[1])
    steps = [views, dict(type='PackInputs')]
    steps.insert(place, drop)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        data = ReplaceUnreadable(Digits(pipeline=steps))
        data = pickle.loads(pickle.dumps(data))
    sample = data[SampleIndex(5, seed=1, epoch=2)]
    assert sample['inputs'].shape[-1] == 12
    (path, reason), *_ = sample['data_samples'].unreadable
    assert not path
    assert reason == 'image 5: a transform of the pipeline dropped the image, by returning None'
    assert sample['inputs'].equal(data[SampleIndex(5, seed=1, epoch=2)]['inputs'])
    assert 'unreadable' not in data[SampleIndex(4, seed=1, epoch=2)]['data_samples']


@pytest.mark.parametrize('place', [0, 1], ids=['before the views', 'after them'])
def test_a_transform_that_drops_by_chance_draws_anew_for_each_stand_in(place):
    steps = [dict(type='simclr_mm.TwoViews', size=8), dict(type='PackInputs')]
    steps.insert(place, lambda results: None if np.random.random() < 0.5 else results)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        data = ReplaceUnreadable(Digits(pipeline=steps))
    kept = [data[SampleIndex(k, seed=1)] for k in range(30)]
    dropped = [len(sample['data_samples'].get('unreadable', ())) for sample in kept]
    assert 5 <= sum(map(bool, dropped)) <= 25 and max(dropped) < 10
    again = [data[SampleIndex(k, seed=1)]['inputs'] for k in range(30)]
    assert all(sample['inputs'].equal(other) for sample, other in zip(kept, again))


def test_a_loader_that_drops_empty_files_names_them_here(tmp_path):
    for k in range(4):
        Image.fromarray(np.full((8, 8, 3), 60 * k, np.uint8)).save(tmp_path / f'{k}.png')
    (tmp_path / '1.png').write_bytes(b'')
    load = dict(type='simclr_mm.LoadImageFromFile', ignore_empty=True)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        data = ReplaceUnreadable(ImageFolder(str(tmp_path), [load, dict(type='PackInputs')]))
    (path, reason), *_ = data[SampleIndex(1)]['data_samples'].unreadable
    assert path == str(tmp_path / '1.png') and 'empty' in reason


class DropEverySecond:
    """As mmcv's transforms drop an image."""

    def __call__(self, results):
        return None if results['sample_idx'] % 2 else results


def test_a_batch_is_a_list_of_samples_unless_the_dataset_makes_batches(monkeypatch):
    data = ReplaceUnreadable(Half())
    samples = data.__getitems__([SampleIndex(4), SampleIndex(3)])
    assert samples[0]['inputs'] == 4 and samples[1]['inputs'] % 2 == 0

    class Batches(Half):
        batched = True

        def __getitems__(self, indices):
            return dict(inputs=list(indices))

    assert ReplaceUnreadable(Batches()).__getitems__([1, 3]) == dict(inputs=[1, 3])

    lines = []
    monkeypatch.setattr(
        'simclr_mm.datasets.unreadable.print_log', lambda line, **kwargs: lines.append(line)
    )
    for dataset in (Half(), Batches(), TorchConcatDataset([Half(), Half()])):
        ReplaceUnreadable(dataset)
    assert not lines
    ReplaceUnreadable(TorchConcatDataset([Half(), Batches()]))
    assert len(lines) == 1 and lines[0].startswith('ConcatDataset asks its datasets')


@pytest.mark.portable
@pytest.mark.parametrize(
    'around',
    [
        lambda data: ConcatDataset([data, data]),
        lambda data: RepeatDataset(data, times=2),
        lambda data: TorchConcatDataset([data, data]),
    ],
)
def test_an_image_met_twice_in_an_epoch_is_seen_in_other_views(around):
    """And in the same ones when the run is repeated."""
    digits = Digits(split='test', pipeline=[TwoViews(8)])
    data = ReplaceUnreadable(around(digits))
    assert len(data) == 2 * len(digits)
    first, second = (SampleIndex(5 + k * len(digits), seed=1) for k in range(2))
    alone = digits[SampleIndex(5, seed=1)]['img']
    assert np.array_equal(data[first]['img'], alone)
    assert not np.array_equal(data[second]['img'], alone)
    assert np.array_equal(data[second]['img'], data[second]['img'])


@pytest.mark.parametrize(
    'around',
    [
        lambda data: Subset(data, range(3, 9)),
        lambda data: Subset(Subset(data, np.arange(20)), torch.arange(3, 9)),
        lambda data: TorchConcatDataset([Subset(data, [3]), Subset(data, range(4, 9))]),
    ],
)
def test_a_subset_passes_seed_and_epoch_on(around):
    digits = Digits(split='test', pipeline=[TwoViews(8)])
    data = ReplaceUnreadable(around(digits))
    for i, image in enumerate(range(3, 9)):
        index = SampleIndex(i, seed=1, epoch=2)
        sample = data[index]
        assert sample['sample_idx'] == image and sample['gt_label'] == digits[image]['gt_label']
        assert np.array_equal(sample['img'], data[index]['img'])
        other = data[SampleIndex(i, seed=1, epoch=3)]
        assert not np.array_equal(sample['img'], other['img'])


def test_an_image_that_is_drawn_more_often_is_seen_in_other_views():
    digits = Digits(split='test', pipeline=[TwoViews(8)])
    balanced = ClassBalancedDataset(digits, oversample_thr=0.5)
    drawn = list(balanced.repeat_indices)
    data = ReplaceUnreadable(balanced)
    assert len(data) == len(drawn) > len(digits)
    first = drawn.index(next(row for row in drawn if drawn.count(row) > 1))
    again = drawn.index(drawn[first], first + 1)
    samples = [data[SampleIndex(i, seed=1)] for i in (first, again, again)]
    assert {int(sample['sample_idx']) for sample in samples} == {drawn[first]}
    assert not np.array_equal(samples[0]['img'], samples[1]['img'])
    assert np.array_equal(samples[1]['img'], samples[2]['img'])


@pytest.mark.parametrize(
    'around',
    [
        lambda data: RepeatDataset(data, times=2),
        lambda data: TorchConcatDataset([data, RepeatDataset(data, times=1)]),
        lambda data: Subset(data, range(9)),
        lambda data: KFoldDataset(dict(type='simclr_mm.Digits'), fold=0, num_splits=2),
    ],
)
def test_a_pipeline_arrives_in_the_datasets_inside(around):
    data = ReplaceUnreadable(around(Digits(split='test')))
    data.pipeline = Compose([lambda results: dict(inputs='other')])
    assert data[SampleIndex(0)]['inputs'] == data[SampleIndex(len(data) - 1)]['inputs'] == 'other'


def test_a_stand_in_is_seen_in_other_views_than_the_image_itself():

    class OneBroken(Digits):
        def __getitem__(self, index):
            if index == 3:
                raise UnreadableImage('is truncated', '3.png')
            sample = super().__getitem__(index)
            return dict(sample, data_samples=DataSample())

    data = ReplaceUnreadable(OneBroken(split='test', pipeline=[TwoViews(8)]))
    stand_in = data[SampleIndex(3, seed=1)]
    itself = data[SampleIndex(int(stand_in['sample_idx']), seed=1)]
    assert itself['sample_idx'] == stand_in['sample_idx'] != 3
    assert not np.array_equal(stand_in['img'], itself['img'])


def test_a_pipeline_that_a_hook_exchanges_arrives():
    """As mmpretrain's SwitchRecipeHook does it."""

    class Constant:
        def __call__(self, results):
            return dict(results, img='other', data_samples=DataSample())

    data = ReplaceUnreadable(Digits(split='test', pipeline=[TwoViews(8)]))
    assert not data.batched
    data.pipeline = Compose([Constant()])
    assert data.dataset.pipeline is data.pipeline
    assert data[SampleIndex(3)]['img'] == 'other'
    data = ReplaceUnreadable(ConcatDataset([Digits(), Digits(split='test')]))
    loader = SimpleNamespace(dataset=data)
    SwitchRecipeHook._switch_train_pipeline(
        SimpleNamespace(train_loop=SimpleNamespace(dataloader=loader)), Compose([Constant()])
    )
    assert data[SampleIndex(3)]['img'] == data[SampleIndex(1300)]['img'] == 'other'
    assert pickle.loads(pickle.dumps(ReplaceUnreadable(Digits()))).split == 'train'
