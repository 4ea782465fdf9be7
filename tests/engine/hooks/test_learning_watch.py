"""Runs that learn, do not, or have collapsed; the best checkpoint by any number."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from digits_run import BY_ITERATION, runner
from mmengine.hooks import LoggerHook
from mmengine.logging import MessageHub

from simclr_mm.engine import LearningWatchHook
from simclr_mm.models import NTXentHead

CHANCE = 3.4339872  # ln(2 * 16 - 1)


@pytest.mark.parametrize('loop', [{}, BY_ITERATION], ids=['epochs', 'iterations'])
def test_a_run_that_does_not_learn_says_so_once(tmp_path, monkeypatch, loop):
    loss = NTXentHead.loss
    monkeypatch.setattr(
        NTXentHead, 'loss', lambda self, z: {**loss(self, z), 'loss': 0 * z.sum() + 0.995 * CHANCE}
    )
    watch = 'default_hooks.learning_watch'
    options = {f'{watch}.epochs': 1.5, f'{watch}.min_steps': 5}  # 4 steps an epoch
    run = runner(tmp_path, **options, **{'default_hooks.logger.interval': 2}, **loop)
    run.train()
    log = next(Path(run.log_dir).glob('*.log')).read_text()
    assert (
        log.count(
            'For 1.5 epochs, 6 steps, the loss, now 3.42, has not been more '
            'than 1 % below chance, 3.43 (ln(VN - 1) for NT-Xent): the '
            'encoder is not learning. Change the learning rate'
        )
        == 1
    )


class Logger(list):
    warning = list.append


def watched(losses, neg_sim=0.0, mined=False, **kwargs):
    """Steps after which the hook spoke, 4 steps an epoch, a line of the log every 2."""
    run = SimpleNamespace(
        hooks=[LoggerHook(interval=2)],
        iter=0,
        logger=Logger(),
        message_hub=MessageHub.get_instance('watched'),
        train_dataloader=range(4),
    )
    run.message_hub.log_scalars.clear()
    hook = LearningWatchHook(**{'epochs': 1.5, 'min_steps': 5, **kwargs})
    hook.before_train(run)
    steps = []
    for run.iter, loss in enumerate(losses):
        numbers = dict(loss=loss, chance=CHANCE, neg_sim=neg_sim)
        for name, number in {**numbers, **(dict(mined=0.5) if mined else {})}.items():
            run.message_hub.update_scalar(f'train/{name}', number)
        said = len(run.logger)
        hook.after_train_iter(run, run.iter % 4)
        steps += [run.iter + 1] * (len(run.logger) - said)
    return steps, run.logger


@pytest.mark.parametrize(
    'losses, kwargs, steps',
    [
        ([0.98] * 20, {}, []),
        ([1.2] * 20, {}, [6]),
        ([1.0] * 20, dict(min_steps=11), [12]),
        ([1.0] * 20, dict(epochs=4), [16]),
        ([1.0] * 20, dict(mined=True), []),
        ([1.0] * 4 + [0.9] * 2 + [1.0] * 6, {}, [12]),
        ([1.0] * 6 + [0.9] * 2 + [1.0] * 12, {}, [6, 14]),
        ([1.0, 0.9] * 10, {}, []),
        ([0.5] * 20, dict(neg_sim=0.94), []),
        ([0.5] * 20, dict(neg_sim=0.96), [6]),
        ([0.5] * 20, dict(neg_sim=1.0000001), [6]),
        ([0.5] * 20, dict(neg_sim=40.0), []),  # a dot product
        ([1.0] * 20, dict(neg_sim=0.96, mined=True), [6]),
    ],
)
def test_when_it_speaks(losses, kwargs, steps):
    assert watched([CHANCE * loss for loss in losses], **kwargs)[0] == steps


def test_a_margin_loss_of_margin_0_has_no_chance_to_be_below(monkeypatch):
    monkeypatch.setitem(globals(), 'CHANCE', 0.0)
    assert watched([0.05] * 20)[0] == []


def test_what_it_says_of_collapsed_projections():
    _, (sentence,) = watched([CHANCE] * 6, neg_sim=0.99)
    assert 'now 0.990: they have collapsed to one point' in sentence


def test_nothing_to_say_of_a_classifier():
    hook = LearningWatchHook()
    run = SimpleNamespace(
        hooks=[],
        iter=0,
        message_hub=MessageHub.get_instance('classifier'),
        train_dataloader=range(1),
    )
    hook.before_train(run)
    hook.after_train_iter(run, 0)


@pytest.mark.parametrize(
    'rank, std, expected',
    [
        (1.3, 0.01, 'Effective rank 1.3 of 512, '),
        (40.0, 1e-4, 'standard deviation 0.0023 of '),
        (13.6, 0.0131, None),
    ],
)
def test_collapsed_features(rank, std, expected):
    run = SimpleNamespace(hooks=[], iter=0, logger=Logger())
    metrics = {
        'label_free/effective_rank': rank,
        'label_free/feature_std': std,
        'label_free/isotropic_std': 512**-0.5,
    }
    hook = LearningWatchHook()
    hook.after_val_epoch(run, metrics)  # tools/test.py: there is no training to judge
    hook.before_train(run)
    for _ in range(2):
        hook.after_val_epoch(run, metrics)
    hook.after_val_epoch(run, {'knn/top1': 1.0})
    assert len(run.logger) == (expected is not None)
    assert all(expected in sentence for sentence in run.logger)


def test_the_best_by_probe_and_by_rank(tmp_path):
    """All of it in one short run: values in the log, files of the best."""
    run = runner(
        tmp_path,
        validate=True,
        **{
            'model.online_probe': dict(num_classes=10),
            'train_dataloader.dataset.with_label': True,
            'train_cfg.val_interval': 1,
            'val_dataloader.dataset.gallery.indices': 300,
            'val_dataloader.dataset.query.indices': 100,
            'default_hooks.checkpoint.save_best': [
                'probe/top1',
                'label_free/effective_rank',
                'label_free/uniformity',
            ],
            'default_hooks.checkpoint.rule': ['greater', 'greater', 'less'],
            'val_evaluator': [
                dict(type='simclr_mm.KNNAccuracy', k=20),
                dict(type='simclr_mm.ProbeAccuracy', topk=(1, 5)),
                dict(type='simclr_mm.LabelFreeMetrics'),
            ],
        },
    )
    run.train()
    lines = Path(run.log_dir, 'vis_data', 'scalars.json').read_text().splitlines()
    logged = [line for line in map(json.loads, lines) if 'knn/top1' in line]
    assert len(logged) == 3
    for name, best in (
        ('probe/top1', max),
        ('label_free/effective_rank', max),
        ('label_free/uniformity', min),
    ):
        values = [line[name] for line in logged]
        epoch = values.index(best(values)) + 1
        name = name.replace('/', '_')
        assert [file.name for file in tmp_path.glob(f'best_{name}*')] == [
            f'best_{name}_epoch_{epoch}.pth'
        ]
    trained = [line for line in map(json.loads, lines) if 'probe_loss' in line]
    assert len(trained) == 12
    assert trained[-1]['probe_loss'] < trained[0]['probe_loss']
    assert trained[0]['loss'] < 5  # without the probe's ln 10
