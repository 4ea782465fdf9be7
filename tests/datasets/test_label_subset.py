"""Which images keep their labels."""

import logging

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image

from simclr_mm.datasets import SampleIndex, class_balanced_subset, label_subset, stratified_subset
from simclr_mm.engine import Runner
from simclr_mm.engine.dataloaders import build_train_dataloader

pytestmark = pytest.mark.portable
DIGITS = dict(type='simclr_mm.Digits', pipeline=[dict(type='PackInputs')])
SIZES = dict(ant=12, bee=6, cat=2)


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """<class>/<class>_<i>.png, and a file s.png in every class."""
    root = tmp_path_factory.mktemp('folder')
    for name, count in SIZES.items():
        (root / name).mkdir()
        for file in [f'{name}_{i}.png' for i in range(count - 1)] + ['s.png']:
            Image.new('RGB', (4, 4)).save(root / name / file)
    return root


def files(root, serialize_data=False, **kwargs):
    """The reduced dataset of a folder, and the names in it."""
    dataset = dict(type='CustomDataset', data_root=str(root), serialize_data=serialize_data)
    data = label_subset(dataset, **kwargs)
    paths = [data.get_data_info(i)['img_path'] for i in range(len(data))]
    return data, [path[len(str(root)) + 1 :] for path in paths]


def written(tmp_path, *names):
    path = tmp_path / 'list.txt'
    path.write_text('\n'.join(names) + '\n')
    return dict(list_file=str(path))


@pytest.mark.parametrize(
    'share, counts',
    [
        (1.0, [12, 6, 2]),
        (0.5, [6, 3, 1]),
        (0.25, [3, 2, 1]),  # 1.5 is rounded up
        (0.01, [1, 1, 1]),  # no class is left out
    ],
)
def test_a_share_of_every_class(folder, share, counts):
    data, names = files(folder, share=share)
    assert np.bincount(data.get_gt_labels()).tolist() == counts
    assert len(set(names)) == sum(counts)
    # Labels are those of the whole dataset.
    assert all(
        name.startswith(data.CLASSES[label]) for name, label in zip(names, data.get_gt_labels())
    )


def test_a_number_of_every_class_and_the_same_rows_by_either_name():
    five = label_subset(DIGITS, per_class=5)
    assert np.bincount(five.get_gt_labels()).tolist() == [5] * 10
    # 1 % of even classes of 500 is 5 of each: the same draw, so the same images.
    labels = np.repeat(np.arange(4), 500)
    np.testing.assert_array_equal(
        stratified_subset(labels, 0.01, seed=3), class_balanced_subset(labels, 5, seed=3)
    )


def test_the_draw_is_a_function_of_the_seed(folder):
    draws = [tuple(files(folder, share=0.5, seed=seed)[1]) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1] and len(set(draws)) == 3


def test_images_keep_pixels_labels_and_the_index_that_was_asked_for():
    whole = label_subset(DIGITS, share=1.0)
    few = label_subset(DIGITS, per_class=2)
    rows = class_balanced_subset(whole.get_gt_labels(), 2, seed=0)
    assert len(few) == 20 and len(whole) == 1297
    for place, row in enumerate(rows.tolist()):
        a, b = few[place], whole[row]
        assert (a['inputs'] == b['inputs']).all()
        assert a['data_samples'].gt_label == b['data_samples'].gt_label
    seen = few.get_data_info(SampleIndex(7, seed=4, epoch=9))['sample_idx']
    assert (seen, seen.seed, seen.epoch) == (7, 4, 9)


def test_a_list_of_file_names(folder, tmp_path):
    named = ['bee_3.png', 'ant_10.png', 'cat/s.png', ' ant_1.png ', '']
    data, names = files(folder, serialize_data=True, **written(tmp_path, *named))
    assert names == ['ant/ant_1.png', 'ant/ant_10.png', 'bee/bee_3.png', 'cat/s.png']
    assert data.get_gt_labels().tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(
    'names, message',
    [
        (
            ['ant_1.png', *(f'x{i}.png' for i in range(7))],
            r'not among the 20 of CustomDataset \(7\): x0.png, .*x4.png and 2 more',
        ),
        (['ant_1.png', 'ant_1.png', 'ant_2.png'], r'more than once, .* \(1\): ant_1.png'),
        (['s.png'], r'several images \(1\): s.png. Write <class>/<file>'),
        (['ant_1.png', 'ant/ant_1.png'], r'more than once, .* \(2\): ant'),
        (
            ['nt_1.png', 'ant_2.png'],
            r'not among the 20 of CustomDataset \(1\): nt_1.png',
        ),  # an end is another name
        ([], 'lists no image'),
    ],
)
def test_a_list_that_does_not_fit(folder, tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        files(folder, **written(tmp_path, *names))


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(), 'exactly one of share, per_class and list_file'),
        (dict(share=0.1, per_class=5), 'exactly one of'),
        (dict(share=0.0), 'share = 0.0'),
        (dict(share=10), 'share = 10'),
        (dict(per_class=0), 'per_class = 0'),
        (dict(per_class=200), 'per_class = 200: class 8 has 126 images'),
        (dict(list_file='no/1percent.txt'), 'curl .* no/1percent.txt https://.*/1percent'),
        (dict(list_file='10percent.txt'), 'curl .* 10percent.txt https://.*/10percent.txt'),
    ],
)
def test_errors(kwargs, message):
    with pytest.raises(ValueError, match=message):
        label_subset(DIGITS, **kwargs)


def test_images_without_labels_or_names(tmp_path):
    with pytest.raises(ValueError, match='the images of Digits have no file names'):
        label_subset(DIGITS, **written(tmp_path, '0.png'))
    with pytest.raises(
        ValueError,
        match='LabelSubset.dataset is Digits with images that have no label, the first image 0',
    ):
        label_subset(dict(DIGITS, with_label=False), share=0.5)
    nested = dict(type='ConcatDataset', datasets=[DIGITS])
    with pytest.raises(ValueError, match='LabelSubset.dataset is ConcatDataset'):
        label_subset(nested, share=0.5)


class FakeRunner:
    """What build_train_dataloader asks of a runner."""

    seed, world_size, _randomness_cfg = 0, 1, {}
    logger, model = logging.getLogger(__name__), torch.nn.Module()
    build_dataloader = staticmethod(Runner.build_dataloader)


def test_a_subset_smaller_than_a_batch_is_refused_and_another_is_trained_on():
    loader = dict(
        batch_size=25,
        drop_last=True,
        num_workers=0,
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='simclr_mm.ResumableSampler'),
        dataset=dict(type='simclr_mm.LabelSubset', per_class=2, dataset=DIGITS),
    )
    with pytest.raises(ValueError, match='has 20 images, fewer than one batch'):
        build_train_dataloader(FakeRunner(), loader)
    loader['dataset']['per_class'] = 5
    batches = list(build_train_dataloader(FakeRunner(), loader))
    labels = [int(s.gt_label) for batch in batches for s in batch['data_samples']]
    assert len(batches) == 2 and sorted(labels) == sorted([*range(10)] * 5)
