"""The live line of a terminal, and the log beside it."""

import io
import re
from pathlib import Path

import pytest
import torch
from digits_run import runner
from mmengine.hooks import Hook
from rich.console import Console

from simclr_mm.engine.hooks import progress_bar


class Late(Hook):
    """Warns, or fails, in the last step but one."""

    def __init__(self, error=None):
        self.error = error

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 10:
            runner.logger.warning('beware of the dog')
            if self.error:
                raise self.error


def run(tmp_path, monkeypatch, terminal, hook):
    """The screen and the log's file of a run with a line for each of its 12 steps."""
    screen = io.StringIO()
    monkeypatch.setattr('sys.stderr', screen)
    monkeypatch.setattr(
        progress_bar,
        'Console',
        lambda stderr: Console(file=screen, force_terminal=terminal, width=150, color_system=None),
    )
    options = {'log_level': 'INFO', 'custom_hooks': [hook]}
    training = runner(tmp_path, **options)
    streams = [getattr(each, 'stream', None) for each in training.logger.handlers]
    try:
        training.train()
    except KeyboardInterrupt:
        pass
    assert [getattr(each, 'stream', None) for each in training.logger.handlers] == streams
    shown = re.sub(r'\x1b\[[0-9;]*[A-Za-z]', '', screen.getvalue().replace('\x1b[?25h', '<end>'))
    return shown, Path(training.log_dir, f'{training.timestamp}.log').read_text()


@pytest.mark.parametrize(
    'metrics, shown',
    [
        (dict(confusion=torch.eye(2), recall=[1.0, 0.5], top1=torch.tensor(12.345)), 'top1 12.3'),
        (dict(recall=[1.0, 0.5]), ''),
        ({}, ''),
    ],
)
def test_a_validation_shows_its_first_number(metrics, shown):
    hook = progress_bar.ProgressBarHook()
    hook._progress, hook._show, hook._validation = object(), lambda: None, ''
    hook.after_val_epoch(None, metrics)
    assert shown in hook._validation


@pytest.mark.parametrize('error', [None, KeyboardInterrupt()])
def test_a_terminal_shows_the_bar_and_warnings(tmp_path, monkeypatch, error):
    shown, log = run(tmp_path, monkeypatch, True, Late(error))
    last = re.findall(r'step (\d+) of 12 .*? loss (\S+) \(chance (\S+)\)', shown)[-1]
    steps = 10 if error else 12
    assert log.count('Epoch(train)') == steps
    loss, chance = re.findall(r' loss: (\S+) .*chance: (\S+)', log)[-1]
    assert last == (str(steps), loss, chance)
    assert 'images/s' in shown and ' left' in shown
    assert 'beware of the dog' in shown and 'Epoch(train)' not in shown.partition('step ')[2]
    assert '<end>' in shown  # the cursor is visible again


def test_without_a_terminal_nothing_changes(tmp_path, monkeypatch):
    shown, log = run(tmp_path, monkeypatch, False, Late())
    assert 'step 12 of' not in shown and log.count('Epoch(train)') == 12
