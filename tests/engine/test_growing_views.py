"""Views that grow while training goes on: TwoViews with milestones, in whole runs."""

from pathlib import Path

import numpy as np
import pytest
from digits_run import BY_ITERATION, EVERY_ITERATION, losses, runner
from mmengine.hooks import Hook
from PIL import Image

from simclr_mm.errors import UserError

GROWING = {
    **EVERY_ITERATION,
    'train_dataloader.dataset.pipeline.0.size': [8, 12, 16],
    'train_dataloader.dataset.pipeline.0.milestones': [1, 2],
    'log_level': 'INFO',
}


class Sides(Hook):
    """Notes the side of the views of every step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        vars(runner).setdefault('sides', []).append(data_batch['inputs'].shape[-1])


def _train(work_dir, **options):
    run = runner(work_dir, custom_hooks=[dict(type=Sides)], **{**GROWING, **options})
    run.train()
    return run


def _log(run):
    return next(Path(run.log_dir).glob('*.log')).read_text()


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    return _train(tmp_path_factory.mktemp('growing') / 'whole')


def test_each_epoch_has_its_size(whole):
    assert whole.sides == [8] * 4 + [12] * 4 + [16] * 4
    assert 'Views of 8 px from epoch 1, 12 px from epoch 2, 16 px from epoch 3.' in _log(whole)


@pytest.mark.parametrize('step', [4, 6, 11])
def test_a_resumed_run_has_the_same_losses(whole, tmp_path, step):
    """From the end of a stage and from inside others, now with a worker that stays alive."""
    file = f'{whole.work_dir}/iter_{step}.pth'
    workers = {'train_dataloader.num_workers': 1, 'train_dataloader.persistent_workers': True}
    rest = _train(tmp_path / 'rest', **workers, resume=True, load_from=file)
    assert rest.sides == whole.sides[step:]
    assert losses(rest) == {k: loss for k, loss in losses(whole).items() if k > step}


def _by_iteration(length):
    return {**BY_ITERATION, 'train_cfg': {**BY_ITERATION['train_cfg'], 'max_iters': length}}


def test_by_iteration(tmp_path):
    assert _train(tmp_path / 'run', **_by_iteration(9)).sides == [8] * 4 + [12] * 4 + [16]


@pytest.mark.parametrize(
    'options', [{'train_cfg.max_epochs': 2}, _by_iteration(8)], ids=['epochs', 'iterations']
)
def test_a_size_that_no_epoch_has_is_refused(tmp_path, options):
    message = r'milestones = \[1, 2\] are not within .* after epoch 2. So no view would have 16 px'
    with pytest.raises(UserError, match=message + r'.*pipeline\.0\.milestones'):
        _train(tmp_path / 'short', **options)


def test_the_error_names_the_place_of_the_views(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(40):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f'{k}.png')
    views = dict(type='simclr_mm.TwoViews', size=[8, 12], milestones=[2], transforms=[])
    pipeline = [dict(type='simclr_mm.LoadImageFromFile'), views, dict(type='PackInputs')]
    files = dict(type='simclr_mm.ImageFolder', data_root=str(tmp_path), pipeline=pipeline)
    data = {'train_dataloader.dataset': dict(_delete_=True, **files), 'train_cfg.max_epochs': 2}
    run = runner(tmp_path / 'run', **{**EVERY_ITERATION, **data})
    with pytest.raises(UserError, match=r'pipeline\.1\.milestones'):
        run.train()
