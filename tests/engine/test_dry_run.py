"""One process plays a rank of a large job."""

import pytest
import torch
from digits_run import DIGITS, SMALL, runner
from helpers.tools import refusal, tool
from mmengine.config import Config
from mmengine.hooks import Hook

from simclr_mm.engine.dry_run import seconds_a_step, short_run

OPTIONS = {
    **SMALL,
    'train_dataloader.batch_size': 2,
    'train_dataloader.dataset.indices': 1100,
    'model.neck.out_channels': 16,
}
FLAGS = [f'{key}={value}' for key, value in OPTIONS.items()]


def test_a_rank_of_512(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tool('train.py', DIGITS, '--dry-run', '512:17', '--cfg-options', *FLAGS)
    printed = capsys.readouterr().out
    assert 'Rank 17 of 512, played by one process' in printed
    assert (
        '1,100 images, 2 an epoch for this rank; 1 steps of 2 images here, 1,024 in all' in printed
    )
    # 2 views of 1024 images, 16 numbers each: 12 M d + 20 M bytes.
    assert (
        f'{2048 * (12 * 16 + 20) / 1e3:.1f} kB for a loss over 2,048 projections of 16' in printed
    )
    assert not torch.distributed.is_initialized()
    assert list(tmp_path.iterdir()) == []


def test_an_average_that_begins_late(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(DIGITS)
    cfg.merge_from_dict(OPTIONS)
    cfg.custom_hooks = [
        dict(type='EMAHook', begin_epoch=10),
        dict(type='EMAHook', begin_iter=1000, _scope_='mmengine'),
    ]
    short_run(cfg, 2, Hook())
    assert [each.get('begin_epoch') for each in cfg.custom_hooks] == [10, None]


def test_views_that_grow_have_their_largest_size(tmp_path, monkeypatch):
    seen = []

    class Sides(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            seen.append(tuple(data_batch['inputs'].shape[1:]))

    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(DIGITS)
    cfg.merge_from_dict(OPTIONS)
    cfg.train_dataloader.dataset.pipeline[0].update(size=[8, 20], milestones=[15])
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset
    )
    cfg.train_dataloader.dataset.dataset.batched = False
    short_run(cfg, 2, Sides())
    assert seen == [(2, 3, 20, 20)] * 2


@pytest.mark.parametrize('wrong', ['512', '17:512', '4:-1', '0:0'])
def test_no_rank_of_a_job(wrong, capsys):
    with pytest.raises(SystemExit) as end:
        tool('train.py', DIGITS, '--dry-run', wrong)
    assert end.value.code == 2
    assert 'give N:K, such as 512:17' in capsys.readouterr().err


def test_ranks_play_no_ranks(monkeypatch):
    monkeypatch.setattr('torch.distributed.is_initialized', lambda: True)
    said = refusal('train.py', DIGITS, '--dry-run', '8:1', '--cfg-options', *FLAGS)
    assert 'a dry run is one process' in said


def test_a_config_without_hooks_and_visualizer(tmp_path):
    cfg = runner(tmp_path, **{'default_hooks.checkpoint': None}).cfg
    cfg.pop('default_hooks'), cfg.pop('visualizer')
    assert seconds_a_step(cfg) > 0
