"""A run that goes on with another number of ranks: the same images, views and losses."""

import hashlib
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from digits_run import EVERY_ITERATION, runner
from helpers.processes import free_port, launched, run_ranks, start
from mmengine.hooks import Hook

from simclr_mm.engine.resume import former_ranks
from simclr_mm.errors import UserError

# 24 images a step, 4 steps an epoch, 12 steps.
OPTIONS = {
    **EVERY_ITERATION,
    'train_dataloader.batch_size': 12,
    'train_dataloader.dataset.indices': 100,
    'model.backbone.norm_cfg': dict(type='GN', num_groups=2),
    'model.neck.norm_cfg': None,
    'optim_wrapper.dtype': 'float32',
    'optim_wrapper.optimizer.lr': 1e-4,  # a larger one magnifies the last bits of a sum
}


class Seen(Hook):
    """Keeps the views of each step, as a hash of each image's, and the loss of this rank."""

    def before_train(self, runner):
        self.views, self.steps = [], {}
        model = getattr(runner.model, 'module', runner.model)
        model.data_preprocessor.register_forward_hook(self._see)

    def _see(self, module, args, data):
        for image in data['inputs']:
            self.views.append(hashlib.sha256(image.numpy().tobytes()).hexdigest()[:16])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.steps[runner.iter + 1] = [outputs['loss'].item(), self.views]
        self.views = []


class Lost(Hook):
    """Takes the process away after its second step, as a machine goes."""

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def _train(rank, port, ranks, folder, name, options, *hooks):
    torch.set_num_threads(1)
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    if ranks > 1:
        os.environ.update(launched(rank, ranks, port))
        options = {**options, 'launcher': 'pytorch'}
    run = runner(folder / name, **{**OPTIONS, **options})
    seen = Seen()
    for hook in (seen, *hooks):
        run.register_hook(hook)
    run.train()
    (folder / f'{name}-{rank}.json').write_text(json.dumps(seen.steps))
    if rank == 0:
        (folder / f'{name}.log').write_text(next(Path(run.log_dir).glob('*.log')).read_text())


def train(folder, name, ranks, **options):
    """Train on so many ranks. By step, the mean loss of all, and the images in rank order."""
    run_ranks(_train, ranks, free_port(), ranks, folder, name, options)
    parts = [json.loads((folder / f'{name}-{rank}.json').read_text()) for rank in range(ranks)]
    return {
        int(step): (
            sum(part[step][0] for part in parts) / ranks,
            [image for part in parts for image in part[step][1]],
        )
        for step in parts[0]
    }


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    return folder, train(folder, 'whole', 2)


def resumed(folder, name, step):
    """Options that go on from a moved folder of a run stopped after a step."""
    return dict(resume=True, load_from=str(folder / name / f'iter_{step}.pth'))


@pytest.mark.slow
def test_two_then_one_then_three(unbroken):
    folder, whole = unbroken
    assert len(whole) == 12 and all(len(set(images)) == 24 for _, images in whole.values())
    one = train(folder, 'one', 1, **resumed(folder, 'whole', 3))
    three = train(folder, 'three', 3, **resumed(folder, 'one', 6))
    assert sorted(one) == [*range(4, 13)] and sorted(three) == [*range(7, 13)]
    for run in (one, three):
        for step, (loss, images) in run.items():
            assert images == whole[step][1]
            assert loss == pytest.approx(whole[step][0], abs=1e-6)
    log = (folder / 'three.log').read_text()
    assert 'saved by 2 x 12 images a step, and this run takes 3 x 8: ' in log
    assert 'The losses will differ' not in log


@pytest.mark.slow
def test_the_batch_stays_where_ranks_are_lost_before_the_first_checkpoint(unbroken):
    folder, whole = unbroken
    options = {'resume': True, 'default_hooks.checkpoint.by_epoch': True}
    port = free_port()
    ranks = [start(_train, rank, port, 2, folder, 'lost', options, Lost()) for rank in range(2)]
    for process in ranks:
        process.join(250)
    assert [process.exitcode for process in ranks] == [-signal.SIGKILL] * 2
    one = train(folder, 'lost', 1, **options)
    assert sorted(one) == [*range(1, 13)]
    for step, (loss, images) in one.items():
        assert images == whole[step][1] and loss == pytest.approx(whole[step][0], abs=1e-6)
    names = sorted(path.name for path in (folder / 'lost').glob('*.pth'))
    assert names == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']


@pytest.mark.slow
def test_frozen_bn_is_the_same_on_any_number(tmp_path):
    """Its scale and shift are trained, its statistics are those of the first weights."""
    frozen = {
        'model.backbone.norm_cfg': dict(type='BN', requires_grad=True),
        'model.backbone.norm_eval': True,
        'train_cfg.max_epochs': 1,
        'param_scheduler': [],
    }
    whole = train(tmp_path, 'whole', 2, **frozen)
    rest = train(tmp_path, 'rest', 1, **frozen, **resumed(tmp_path, 'whole', 2))
    assert sorted(rest) == [3, 4]
    for step, (loss, images) in rest.items():
        assert images == whole[step][1] and loss == pytest.approx(whole[step][0], abs=1e-6)
    assert len({loss for loss, _ in whole.values()}) == 4
    assert 'The losses will differ' not in (tmp_path / 'rest.log').read_text()


@pytest.mark.slow
def test_batch_norm_and_another_batch(unbroken, tmp_path):
    """On one process: what cannot be equal is said, and another batch of all ranks is refused."""
    folder, _ = unbroken
    options = {**OPTIONS, **resumed(folder, 'whole', 3)}
    run = runner(tmp_path, **{**options, 'train_dataloader.batch_size': 16})
    with pytest.raises(UserError, match='was saved by a run of 100 images in 4 steps of 2 x 12'):
        run.train()
    # The config says the whole batch.
    run = runner(tmp_path / 'b', **{**options, 'train_dataloader.batch_size': 24})
    run._choose_checkpoint()
    run._take_over_batches()
    assert run.dealt == (2, 12) and run._train_dataloader['batch_size'] == 24
    model = {'model.backbone.norm_cfg': dict(type='BN'), 'model.neck.norm_cfg': dict(type='BN1d')}
    run = runner(tmp_path / 'c', **{**options, **model, 'launcher': 'none'})
    run._choose_checkpoint()
    run._take_over_batches()
    log = next(Path(run.log_dir).glob('*.log')).read_text()
    assert 'The losses will differ' in log and 'set model.micro_batch_size=12' in log


@pytest.mark.parametrize(
    'layout, ranks, batch_size, expected',
    [
        ('100 images in 4 steps of 2 x 12', 2, 12, None),
        ('100 images in 4 steps of 2 x 12', 1, 12, (2, 12)),
        ('100 images in 4 steps of 2 x 12', 1, 24, (2, 12)),
        ('100 images in 4 steps of 2 x 12, 2 shards at once', 4, 12, (2, 12)),
        ('100 images in 4 steps of 2 x 12', 1, 16, None),  # another batch
        ('100 images in 4 steps of 2 x 12', 2, 24, None),
        ('of an older release', 2, 12, None),
    ],
)
def test_which_runs_are_dealt_anew(layout, ranks, batch_size, expected):
    checkpoint = dict(message_hub=dict(runtime_info=dict(data_layout=layout)))
    assert former_ranks(checkpoint, 'a.pth', ranks, batch_size) == expected


def test_ranks_that_cannot_share_a_batch():
    info = dict(data_layout='100 images in 4 steps of 2 x 12')
    with pytest.raises(UserError, match='a number of processes that divides 24'):
        former_ranks(dict(message_hub=dict(runtime_info=info)), 'a.pth', 5, 12)
