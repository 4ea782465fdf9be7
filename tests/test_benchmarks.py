"""The benchmark scripts run; what they measure is for nobody to assert."""

import contextlib
import json
import multiprocessing
import runpy
import sys

import cv2
import numpy as np
import torch
from helpers import CONFIGS, DIGITS, ROOT
from mmengine.config import Config

from simclr_mm.apis import get_model

BENCHMARKS = ROOT / 'tools' / 'benchmarks'


def load(name, monkeypatch, *args):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
    return runpy.run_path(str(BENCHMARKS / name))


def test_bench_loss(tmp_path, monkeypatch, capsys):
    script = load('bench_loss.py', monkeypatch, '--rows', 8, 16, '--rounds', 2, '--out', tmp_path)
    script['main'].__globals__['SECONDS'] = 1e-6
    script['main']()
    assert 'NT-Xent, forward and backward' in capsys.readouterr().out
    results = json.loads((tmp_path / 'bench_loss.json').read_text())['results']
    names = {result['name'] for result in results}
    assert {'simclr_mm', 'cross-entropy', 'mmpretrain'} <= names
    assert all(len(result['ms']) == 2 for result in results)
    assert cv2.imread(str(tmp_path / 'bench_loss.png')).std() > 20


def test_bench_loss_compares_the_same_loss(monkeypatch):
    script = load('bench_loss.py', monkeypatch)
    z = torch.randn(6, 2, 5, dtype=torch.float64)
    values = {
        name: make()(z).item()
        for name, (make, distribution, _) in script['CONTENDERS'].items()
        if distribution in (None, 'mmpretrain')
    }
    assert len(values) == 5
    assert max(values.values()) - min(values.values()) < 1e-8


def test_agreement_counts_ties(monkeypatch):
    """Queries halfway between two images of different classes, and far from others."""
    script = load('agreement.py', monkeypatch)
    angles = np.repeat(np.arange(8), 2) * np.pi / 4 + np.tile([-0.1, 0.1], 8)
    gallery = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    labels = np.tile([1, 0], 8)
    halfway = np.arange(8) * np.pi / 4
    queries = np.stack([np.cos(halfway), np.sin(halfway)], 1).astype(np.float32)
    train, test = (gallery, labels), (queries, np.zeros(8, int))
    differing, ties, ours, expected = script['knn_agreement'](train, test, 1, 0.1)
    assert differing == ties == (ours != expected).sum() > 0
    # Nearer to one of them there is nothing to disagree about.
    turned = gallery @ np.array([[0.999, 0.0447], [-0.0447, 0.999]], np.float32)
    assert script['knn_agreement'](train, (turned, labels), 1, 0.1)[:2] == (0, 0)
    ours, expected = script['linear_agreement'](train, (turned, labels), 1.0)
    assert (ours == expected).mean() > 0.9


def test_agreement_of_a_checkpoint(tmp_path, monkeypatch, capsys):
    checkpoint = tmp_path / 'encoder.pth'
    torch.save(dict(state_dict=get_model(str(DIGITS)).state_dict()), checkpoint)
    published = CONFIGS / 'benchmarks' / 'r18-w16_1xb256-linear-adam-100e_digits.py'
    data = 'test_dataloader.dataset'
    script = load(
        'agreement.py',
        monkeypatch,
        DIGITS,
        checkpoint,
        *('--k', 1, 5, '--published', published, '--cache', tmp_path / 'cache'),
        *('--cfg-options', f'{data}.gallery.indices=60', f'{data}.query.indices=20'),
    )
    script['main']()
    lines = capsys.readouterr().out.splitlines()
    starts = ('kNN, k 1: ', 'kNN, k 5: ', 'linear, penalty 1: ', 'fast: ', str(published))
    assert all(any(line.startswith(start) for line in lines) for start in starts)


def test_bench_micro_batches(monkeypatch, capsys):
    sizes = ('--batch', 6, '--micro-batch', 2, '--plain', 2, 4, '--side', 16, '--threads', 1)
    monkeypatch.setattr(multiprocessing, 'get_context', lambda method: InThisProcess)
    load('bench_micro_batches.py', monkeypatch, *sizes)['main']()
    assert '(computed)' in capsys.readouterr().out


class InThisProcess:
    Pool = classmethod(lambda cls, count: contextlib.nullcontext(cls))
    apply = staticmethod(lambda function, args: function(*args))


def test_bench_input(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, 'set_num_threads', lambda count: None)
    rng = np.random.default_rng(0)
    for i in range(2):
        image = rng.integers(0, 256, (60, 80, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'{i}.jpg'), image)
    script = load(
        'bench_input.py',
        monkeypatch,
        '--data',
        tmp_path,
        '--images',
        2,
        '--repeats',
        2,
        '--out',
        tmp_path / 'out',
    )
    import input_peers

    missing = dict(input_peers.PEERS, lightly=(not_there, ()))
    monkeypatch.setitem(script['main'].__globals__, 'PEERS', missing)
    monkeypatch.setattr(
        sys, 'argv', [*sys.argv, '--peers', 'mmpretrain', 'torchvision v2', 'lightly']
    )
    script['main']()
    out = capsys.readouterr().out
    assert 'lightly: not importable (No module' in out
    assert '│ read and decode ' in out
    written = json.loads((tmp_path / 'out' / 'bench_input_data.json').read_text())
    names = ['simclr_mm, worker', 'mmpretrain', 'torchvision v2']
    assert {'simclr_mm, for the device', 'decode alone', *names} == set(written['rates'])
    assert all(len(values) == 2 for values in written['rates'].values())
    assert {'read', 'crop', 'hue', 'blur', 'collate'} <= set(written['stages'])
    assert cv2.imread(str(tmp_path / 'out' / 'bench_input_data.png')).std() > 20


def not_there():
    raise ModuleNotFoundError("No module named 'lightly'")


def test_bench_train(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i in range(2):
        image = np.full((40, 40, 3), 100 * i, np.uint8)
        cv2.imwrite(str(tmp_path / f'{i}.jpg'), image)
    config = Config.fromfile(CONFIGS / 'simclr_r18_16xb256-coslr-200e_in1k.py')
    config.train_dataloader.dataset.pipeline[1].update(size=[24, 28], milestones=[100])
    config.test_dataloader.dataset.pipeline[2].crop_size = 32
    config.model.backbone.update(base_channels=8, stem_channels=8, type='ResNet_CIFAR')
    config.dump(tmp_path / 'config.py')
    script = load(
        'bench_train.py',
        monkeypatch,
        '--config',
        tmp_path / 'config.py',
        '--data',
        tmp_path,
        '--steps',
        2,  # one of each size
        '--repeats',
        1,
        '--dtypes',
        'float32',
        '--busy',
        1,
        '--out',
        tmp_path,
        '--cfg-options',
        'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=0',
    )
    assert script['size_of_peers'](config) == 32  # of the test, not 28
    script['main']()
    out = capsys.readouterr().out
    rows = ('training, float32', 'ceiling', 'bare forward and backward', 'mmpretrain, float32')
    assert all(f'\n│ {row} ' in out for row in rows)
    seconds = json.loads((tmp_path / 'bench_train.json').read_text())['seconds']
    assert all(len(seconds[row]) == 1 for row in rows)
    # A line of the log in the untimed round and in the timed one.
    log = next(tmp_path.glob('work_dirs/bench_train/*/vis_data/scalars.json'))
    assert log.read_text().count('"loss": ') == 2


def test_compare_revisions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    narrow = 'model.backbone.base_channels=8', 'model.backbone.stem_channels=8'
    few = '--steps', 1, '--repeats', 1, '--cfg-options', 'train_cfg.max_epochs=4', *narrow
    script = load('compare_revisions.py', monkeypatch, 'HEAD', '--config', DIGITS.stem, *few)
    script['main']()
    out = capsys.readouterr().out
    assert f'│ HEAD: {DIGITS.stem} ' in out
    assert f'│ now: {DIGITS.stem} ' in out
