"""The benchmark scripts run; what they measure is for nobody to assert."""
import json
import runpy
import sys
from pathlib import Path

import cv2
import torch

BENCHMARKS = Path(__file__).parents[1] / 'tools' / 'benchmarks'


def load(name, monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
    return runpy.run_path(str(BENCHMARKS / name))


def test_bench_loss(tmp_path, monkeypatch, capsys):
    script = load('bench_loss.py', monkeypatch, '--rows', 8, 16, '--rounds', 2, '--out',
                  tmp_path)
    script['main'].__globals__['SECONDS'] = 1e-6
    script['main']()
    assert 'from 2N = 8 to 16' in capsys.readouterr().out
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
