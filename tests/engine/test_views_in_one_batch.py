"""Datasets in one: what their TwoViews have to share."""

import copy

import pytest
from digits_run import DIGITS, runner
from mmengine.config import Config

from simclr_mm.errors import UserError


def _two(**changes):
    """Digits beside digits whose views differ, as a config."""
    views = Config.fromfile(DIGITS).train_dataloader.dataset.pipeline[0].to_dict()
    views['augment'] = changes.pop('both', 'worker')
    members = [
        dict(
            type='simclr_mm.Digits',
            with_label=False,
            indices=20,
            pipeline=[{**copy.deepcopy(views), **change}, dict(type='PackInputs')],
        )
        for change in ({}, changes)
    ]
    members[1] = dict(type='RepeatDataset', times=2, dataset=members[1])
    return dict(_delete_=True, type='ConcatDataset', datasets=members)


def _run(work_dir, dataset):
    return runner(
        work_dir, **{'train_dataloader.dataset.indices': None, 'train_dataloader.dataset': dataset}
    )


@pytest.mark.parametrize(
    'changes, what',
    [
        (dict(num_views=3), 'num_views, 2 and 3'),
        (dict(size=24), 'size, 16 and 24'),
        (dict(size=[8, 16], milestones=[1]), r'size, \(8, 16\) and 16'),
        (dict(augment='device'), 'augment, device and worker'),
        (dict(both='device', transforms=[]), 'number of transforms, 0 and 3'),
    ],
)
def test_views_that_fit_in_no_batch_are_refused_before_a_step(tmp_path, changes, what):
    run = _run(tmp_path, _two(**changes))
    with pytest.raises(UserError, match=f'^train_dataloader.dataset: TwoViews differ in {what}'):
        run.train()


@pytest.mark.parametrize('changes', [dict(scale=(0.9, 1.0)), dict(transforms=[])])
def test_other_crops_and_transforms_of_workers_share_a_batch(tmp_path, changes):
    _run(tmp_path, _two(**changes)).train()
