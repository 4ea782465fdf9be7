"""Groups of images in arrays and shards: from a file with a line for each, as positives too."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate

from simclr_mm.datasets import ArrayFile, ResumableSampler, SampleIndex
from simclr_mm.datasets.groups import group_number
from simclr_mm.datasets.stored_images import StoredImages
from simclr_mm.errors import UserError
from simclr_mm.models import ViewsPreprocessor
from simclr_mm.transforms.batched import ViewsToMake

# Three patients, and two images in no group.
NAMES = ['a', 'b', 'a', '', 'c', 'a', 'b', '']
MATES = [{2, 5}, {6}, {0, 5}, {3}, {4}, {0, 2}, {1}, {7}]


def pipeline(augment='worker', **kwargs):
    views = dict(size=4, scale=(1, 1), ratio=(1, 1), num_views=3, augment=augment, **kwargs)
    return [dict(type='simclr_mm.TwoViews', **views), dict(type='PackInputs')]


def write(path, kind):
    if kind == 'csv':
        lines = [f'x,{name}' for name in NAMES]
        path.write_text('\n'.join(['patient,group', *lines[:3], '', *lines[3:]]) + '\n\n')
    elif kind == 'one column.csv':
        path.write_text('\n'.join(['group', *NAMES]) + '\n')
    elif kind == 'npy':
        np.save(path, np.array(NAMES))
    elif kind == 'parquet':
        pytest.importorskip('pyarrow.parquet').write_table(
            pytest.importorskip('pyarrow').table(dict(group=NAMES)), path
        )
    else:
        path.write_text('\n'.join(NAMES) + '\n')
    return str(path)


@pytest.fixture
def array(tmp_path):
    """Eight images, each of one grey value."""
    values = 20 * np.arange(8, dtype=np.uint8)
    np.save(tmp_path / 'images.npy', np.broadcast_to(values[:, None, None, None], (8, 6, 6, 3)))
    return str(tmp_path / 'images.npy')


class Stored(StoredImages):
    """The same images, encoded."""

    def find(self):
        return None, None, 8

    def name(self, row):
        return f'shard/{row}.png'

    def read(self, row):
        return cv2.imencode('.png', np.full((6, 6, 3), 20 * row, np.uint8))[1].tobytes()


@pytest.mark.parametrize('kind', ['csv', 'one column.csv', 'npy', 'parquet', 'txt'])
def test_groups_come_from_a_file_in_the_order_of_the_images(array, tmp_path, kind):
    groups = write(tmp_path / f'groups.{kind}', kind)
    expected = [group_number(name) for name in NAMES]
    load = dict(type='simclr_mm.LoadImageFromFile')
    single = ArrayFile(array, groups=groups, pipeline=pipeline())
    batched = ArrayFile(array, groups=groups, pipeline=pipeline(), batched=True)
    stored = Stored('.', with_label=False, groups=groups, pipeline=[load, *pipeline()])
    indices = [SampleIndex(row) for row in range(8)]
    for data in (single, batched, stored):
        assert data.groups_of_images().tolist() == expected
        assert data.get_subset([5, 3]).groups_of_images().tolist() == [expected[5], -1]
        sampler = ResumableSampler(data, groups='together')
        assert sorted(sampler) == list(range(8))
    samples = [[data[i]['data_samples'] for i in indices] for data in (single, stored)]
    for found in (*samples, batched.__getitems__(indices)['data_samples']):
        assert [sample.group for sample in found] == expected


@pytest.mark.parametrize('augment', ['worker', 'device'])
def test_positives_of_a_group_by_every_way(array, tmp_path, augment):
    """Image by image, in one batch and from shards: the same, and all mates are drawn."""
    groups = write(tmp_path / 'groups.txt', 'txt')
    how = dict(groups=groups, positives='group')
    steps = pipeline(augment, transforms=[dict(type='simclr_mm.RandomRotation')])
    load = dict(type='simclr_mm.LoadImageFromFile')
    single = ArrayFile(array, pipeline=steps, **how)
    batched = ArrayFile(array, pipeline=steps, batched=True, **how)
    stored = Stored('.', with_label=False, pipeline=[load, *steps], **how)
    levels = ViewsPreprocessor([0.0] * 3, [1.0] * 3)
    found = [set() for _ in NAMES]
    for epoch in range(12):
        indices = [SampleIndex(row, seed=1, epoch=epoch) for row in range(8)]
        made = [
            levels(dict(inputs=inputs))['inputs']
            for inputs in (
                default_collate([single[i] for i in indices])['inputs'],
                batched.__getitems__(indices)['inputs'],
                default_collate([stored[i] for i in indices])['inputs'],
            )
        ]
        assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
        shown = (made[0][..., 0, 0, 0] / 20).round().int()  # (n, V)
        assert shown[:, 0].tolist() == list(range(8))
        for row, others in zip(found, shown[:, 1:].tolist()):
            row |= set(others)
    assert found == MATES
    inputs = batched.__getitems__(indices)['inputs']
    assert isinstance(inputs, ViewsToMake) == (augment == 'device')


def test_files_that_do_not_fit_are_named(array, tmp_path):
    groups = write(tmp_path / 'groups.csv', 'csv')
    with pytest.raises(UserError, match='groups.txt has 2 groups, but the dataset has 8 images'):
        (tmp_path / 'groups.txt').write_text('a\nb\n')
        ArrayFile(array, groups=str(tmp_path / 'groups.txt'))
    with pytest.raises(UserError, match='names no group'):
        (tmp_path / 'none.txt').write_text('\n' * 8)
        ArrayFile(array, groups=str(tmp_path / 'none.txt'))
    with pytest.raises(UserError, match='has no column group'):
        (tmp_path / 'other.csv').write_text('path\n' + 'a\n' * 8)
        ArrayFile(array, groups=str(tmp_path / 'other.csv'))
    with pytest.raises(UserError, match='there is no file'):
        ArrayFile(array, groups=str(tmp_path / 'missing.npy'))
    with pytest.raises(UserError, match="ArrayFile.positives is 'clip'"):
        ArrayFile(array, groups=groups, positives='clip')
    with pytest.raises(UserError, match="positives = 'group', but no image has a group: .*groups="):
        ArrayFile(array, positives='group')
