"""tools/sweep.py as a user runs it."""

import csv
import runpy
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

from simclr_mm import get_model
from simclr_mm.apis.fingerprint import weights_hash
from simclr_mm.evaluation import read_run

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / 'configs' / 'simclr_r18-w16_1xb64-coslr-30e_digits.py'
SMALL = (
    'train_cfg.max_epochs=2',
    'param_scheduler.0.end=1',
    'param_scheduler.1.begin=1',
    'train_dataloader.dataset.indices=64',
    'val_dataloader.dataset.gallery_per_class=4',
)


def run(monkeypatch, *args):
    argv = [str(ROOT / 'tools' / 'sweep.py'), *map(str, args)]
    monkeypatch.setattr(sys, 'argv', argv)
    runpy.run_path(argv[0], run_name='__main__')


def test_one_run_in_a_process_of_its_own(tmp_path, monkeypatch, capsys):
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
    run(monkeypatch, *args)
    done = read_run(next(tmp_path.glob('a/runs/*/knn.json')))
    assert done.study == dict(study='temperature', norm='no-norm', temperature=10)
    assert 10 < done.results[0].value <= 100
    model = get_model(done.config, pretrained=done.checkpoint)
    assert done.checkpoint_sha256 == weights_hash(model)
    with open(tmp_path / 'a' / 'a-knn.csv') as file:
        assert [float(line['value']) for line in csv.DictReader(file)] == [done.results[0].value]
    assert imread(tmp_path / 'a' / 'a-knn.png').size
    capsys.readouterr()
    run(monkeypatch, *args)  # nothing is left to do
    assert '1 of 1 runs were done before' in capsys.readouterr().out
    monkeypatch.setattr(
        sys, 'argv', ['report.py', str(tmp_path), '--out', str(tmp_path / 'report')]
    )
    runpy.run_path(str(ROOT / 'tools' / 'report.py'), run_name='__main__')
    table = (tmp_path / 'report' / 'report.md').read_text()
    assert '| study temperature, norm no-norm, temperature 10 |' in table


def test_histograms(tmp_path, monkeypatch):
    run(
        monkeypatch,
        'color-histograms',
        '--config',
        DIGITS,
        '--work-dir',
        tmp_path,
        '--values',
        'image=3,5',
        'crops=2',
    )
    assert imread(tmp_path / 'color-histograms.png').size
    with open(tmp_path / 'color-histograms.csv') as file:
        assert {line['image'] for line in csv.DictReader(file)} == {'3', '5'}


@pytest.mark.parametrize(
    'args, message',
    [
        (['head', '--processes', 0], '--processes is 0'),
        (['head', '--values', 'depth=3'], 'axes of this study are head and width'),
        (['color-histograms', '--values', 'strength=3'], 'takes image and crops'),
    ],
)
def test_mistakes_end_in_one_line(args, message, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, *args, '--config', DIGITS, '--work-dir', tmp_path)
