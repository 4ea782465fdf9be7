"""tools/sweep.py as a user runs it."""

import csv

import pytest
from helpers import DIGITS
from helpers.tools import tool
from matplotlib.image import imread
from mmengine.config import Config

from simclr_mm import get_model
from simclr_mm.checkpoints import weights_hash
from simclr_mm.commands.sweep import command
from simclr_mm.evaluation import read_run
from simclr_mm.files.atomic import alone_in
from simclr_mm.registry import type_name

SMALL = (
    'train_cfg.max_epochs=2',
    'param_scheduler.0.end=1',
    'param_scheduler.1.begin=1',
    'train_dataloader.dataset.indices=64',
    'val_dataloader.dataset.gallery_per_class=4',
)


def test_one_run_in_a_process_of_its_own(tmp_path, capsys):
    args = (
        'temperature',
        '--config',
        DIGITS,
        '--work-dir',
        tmp_path / 'a',
        '--values',
        'norm=no-norm',
        'temperature=10',
        '--cfg-options',
        *SMALL,
    )
    tool('sweep.py', *args)
    done = read_run(next(tmp_path.glob('a/runs/*/knn.json')))
    assert done.study == dict(study='temperature', norm='no-norm', temperature=10)
    assert 10 < done.results[0].value <= 100
    model = get_model(done.config, pretrained=done.checkpoint)
    assert done.checkpoint_sha256 == weights_hash(model.state_dict())
    with open(tmp_path / 'a' / 'a-knn.csv') as file:
        assert [float(line['value']) for line in csv.DictReader(file)] == [done.results[0].value]
    assert imread(tmp_path / 'a' / 'a-knn.png').size
    capsys.readouterr()
    tool('sweep.py', *args)  # nothing is left to do
    assert '1 of 1 runs were done before' in capsys.readouterr().out
    tool('report.py', tmp_path, '--out', tmp_path / 'report')
    table = (tmp_path / 'report' / 'report.md').read_text()
    assert '| study temperature, norm no-norm, temperature 10 |' in table


def test_a_sweep_beside_another_changes_nothing(tmp_path):
    with alone_in(tmp_path), pytest.raises(SystemExit, match='another process is working in'):
        tool('sweep.py', 'head', '--config', DIGITS, '--work-dir', tmp_path)
    assert not list(tmp_path.glob('configs/*'))


def test_histograms(tmp_path, capsys):
    tool(
        'sweep.py',
        'color-histograms',
        '--config',
        DIGITS,
        '--work-dir',
        tmp_path,
        '--values',
        'image=3,5,3',
        'crops=2',
    )
    assert imread(tmp_path / 'color-histograms.png').size
    assert 'shows 2 images' in capsys.readouterr().out


@pytest.mark.parametrize(
    'args, message',
    [
        (['head', '--values', 'width=0'], 'width=0: give whole numbers above 0'),
        (['head', '--values', 'depth=3'], 'axes of this study are head and width'),
        (['depth-width', '--values', 'depth=19'], 'depth=19: ResNet_CIFAR has depths 18, 34'),
        (
            ['temperature', '--values', 'norm=l2-norm', 'temperature=0.1,10'],
            'temperature=10: no run',
        ),
        (['color-histograms', '--evaluate', 'linear'], 'trains nothing'),
        (['color-histograms', '--processes', '2'], 'trains nothing'),
        (['color-histograms', '--values', 'crops=100000'], 'give 2 to 100'),
        (['color-histograms', '--values', 'strength=3'], 'takes image and crops'),
        (['color-histograms', '--values', 'image=[]'], 'give whole numbers'),
        (['color-histograms', '--values', 'crops=x'], 'give whole numbers'),
    ],
)
def test_mistakes_end_in_one_line(args, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        tool('sweep.py', *args, '--config', DIGITS, '--work-dir', tmp_path)


def test_a_config_that_names_classes(tmp_path, monkeypatch):
    """Cells are files, which name them by module."""
    (tmp_path / 'old.py').write_text(Config.fromfile(DIGITS).pretty_text)
    (tmp_path / 'new.py').write_text(
        'from mmengine.config import read_base\n'
        'from simclr_mm.evaluation import KNNAccuracy\n'
        'from simclr_mm.transforms import TwoViews\n'
        'with read_base():\n'
        '    from .old import *\n'
        'train_dataloader.dataset.pipeline[0].update(type=TwoViews)\n'
        'val_evaluator.update(type=KNNAccuracy)\n'
    )
    planned = []
    monkeypatch.setattr(
        command.TrainAndScore, 'do_missing', lambda self, runs, *_: planned.extend(runs) or {}
    )
    values = '--values', 'first=crop', 'second=color'
    where = '--config', tmp_path / 'new.py', '--work-dir', tmp_path / 'work'
    tool('sweep.py', 'augmentations', *where, *values)
    cell = Config.fromfile(planned[0].config)
    assert type_name(cell.train_dataloader.dataset.pipeline[0]) == 'TwoViews'
    assert type_name(cell.val_evaluator) == 'KNNAccuracy'
