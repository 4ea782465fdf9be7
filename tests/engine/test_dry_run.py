"""One process plays a rank of a large job."""

import pytest
import torch
from digits_run import DIGITS, SMALL
from helpers.tools import refusal, tool

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
