"""A tool ends in one line for a user's mistake, and with a traceback for its own."""
import argparse
import sys

import numpy as np
import pytest
from mmengine.config import Config

from simclr_mm.apis import command_line
from simclr_mm.checkpoints.safe_load import _TRUSTED

pytestmark = pytest.mark.portable


def _unknown_option():
    command_line.merge_cfg_options(Config(dict(a=1)), {'b': 2})


def _no_config():
    Config.fromfile('nowhere.py')


@pytest.mark.parametrize('main, message', [
    (_unknown_option, "--cfg-options b: the config has no key 'b'"),
    (_no_config, 'nowhere.py'),
])
def test_a_mistake_is_one_line(main, message, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tools/x.py'])
    with pytest.raises(SystemExit) as end:
        command_line.run(main)
    said = end.value.code
    assert said.startswith('x.py: error: ') and message in said and '\n' not in said


def test_a_fault_keeps_its_traceback(monkeypatch):
    with pytest.raises(ValueError, match='of a test'):
        command_line.run(_raise)
    # NumPy's C code raises in a frame of ours, but not by a `raise` of ours.
    monkeypatch.setattr(command_line, 'Path', lambda folder: np.zeros(2) + np.zeros(3))
    with pytest.raises(ValueError, match='broadcast'):
        command_line.run(lambda: command_line.train_on_folder(None, 'x'))


def _raise():
    raise ValueError('of a test')


def test_trust_ends_with_the_tool():
    parser = argparse.ArgumentParser()
    command_line.add_trust_flag(parser)
    seen = []
    for flags in ([], ['--trust-checkpoint'], []):
        command_line.run(lambda:
                         (parser.parse_args(flags), seen.append(_TRUSTED.get())))
    assert seen == [False, True, False]
