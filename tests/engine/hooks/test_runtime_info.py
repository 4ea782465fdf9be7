"""Against MMEngine's own hook, and without a read between two lines of the log."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import LoggerHook
from mmengine.hooks import RuntimeInfoHook as MMEngineHook
from mmengine.logging import MessageHub

from simclr_mm.engine import RuntimeInfoHook

STEPS, INTERVAL = 7, 3


def runner():
    loader = type('Loader', (), dict(__len__=lambda self: STEPS, dataset=None))()
    return SimpleNamespace(
        hooks=[LoggerHook(interval=INTERVAL)],
        message_hub=MessageHub('test'),
        train_dataloader=loader,
        optim_wrapper=None,
        epoch=0,
        iter=0,
        max_epochs=1,
        max_iters=STEPS,
    )


def train(hook, runner, after_step=None):
    generator = torch.Generator().manual_seed(0)
    hook.before_train(runner)
    for step in range(STEPS):
        runner.iter = step
        outputs = dict(
            loss=torch.rand((), generator=generator, requires_grad=True),
            top1=torch.rand((), generator=generator, dtype=torch.float64),
            grad_norm=0.5 * step,
        )
        hook.after_train_iter(runner, step, None, outputs)
        if after_step:
            after_step(step)


def history(runner):
    return {key: buffer.data[0].tolist() for key, buffer in runner.message_hub.log_scalars.items()}


def test_numbers_are_mmengines():
    ours, theirs = runner(), runner()
    train(RuntimeInfoHook(), ours)
    train(MMEngineHook(), theirs)
    assert history(ours) == history(theirs)
    assert len(history(ours)['train/loss']) == STEPS


def test_nothing_is_read_between_lines_of_the_log(monkeypatch):

    def refuse(*args):
        raise AssertionError('the host waits for the device')

    run = runner()
    reads = []

    def check(step):
        reads.append(len(history(run).get('train/loss', ())))

    for name in ('item', '__float__', '__bool__', 'tolist', 'cpu', 'numpy'):
        original = getattr(torch.Tensor, name)

        def guarded(self, *args, original=original, **kwargs):
            line = (run.iter + 1) % INTERVAL == 0 or run.iter + 1 == STEPS
            return original(self, *args, **kwargs) if line else refuse()

        monkeypatch.setattr(torch.Tensor, name, guarded)
    train(RuntimeInfoHook(), run, check)
    assert reads == [0, 0, 3, 3, 3, 6, 7]


def test_the_last_step_of_a_run_inside_an_epoch_is_read():
    run, hook = runner(), RuntimeInfoHook()
    run.max_iters = 5
    hook.before_train(run)
    for run.iter in range(5):
        hook.after_train_iter(run, run.iter, None, dict(loss=torch.tensor(2.0)))
    assert history(run)['train/loss'] == [2] * 5


@pytest.mark.parametrize('when', ['validation', 'checkpoint'])
def test_reads_before_a_validation_and_a_checkpoint(when):
    run, hook = runner(), RuntimeInfoHook()
    hook.last_loop_stage = None
    hook.before_train(run)
    hook.after_train_iter(run, 0, None, dict(loss=torch.tensor(2.0)))
    assert 'train/loss' not in history(run)
    checkpoint = {}
    if when == 'validation':
        hook.before_val(run)
    else:
        hook.before_save_checkpoint(run, checkpoint)
        saved = checkpoint['message_hub']['log_scalars']['train/loss']
        assert saved.data[0].tolist() == [2]
    assert history(run)['train/loss'] == [2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason='counts waits for a GPU')
def test_gpu_is_not_waited_for():
    run, hook = runner(), RuntimeInfoHook()
    hook.before_train(run)
    loss = torch.ones((), device='cuda')
    torch.cuda.set_sync_debug_mode('error')
    try:
        hook.after_train_iter(run, 0, None, dict(loss=loss))
    finally:
        torch.cuda.set_sync_debug_mode('default')
