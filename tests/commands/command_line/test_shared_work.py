"""Ranks that torchrun has started share a command, and leave the files of one process."""

import json
import os
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch
from helpers import DIGITS
from helpers.processes import free_port, launched, run_ranks
from helpers.tools import refusal, tool

from simclr_mm import get_model
from simclr_mm.apis.inference import FeatureInferencer
from simclr_mm.commands import command_line
from simclr_mm.commands.transfer import linear
from simclr_mm.evaluation import read_run
from simclr_mm.evaluation.linear_probe import Sweep

pytest.importorskip('webdataset')
SMALL = ['test_dataloader.dataset.gallery.indices=60', 'test_dataloader.dataset.query.indices=40']
SMALL += ['test_dataloader.batch_size=16', 'test_evaluator.k=5']


@pytest.fixture
def data(tmp_path):
    """Weights, and two classes; one of 26 images in a folder is broken."""
    rng = np.random.default_rng(0)
    for part, count in (('images', 13), ('train', 6), ('val', 2)):
        for k, name in enumerate(('dark', 'light')):
            (tmp_path / part / name).mkdir(parents=True)
            for n in range(count):
                image = rng.integers(0, 100, (16, 16, 3)) + 150 * k
                path = tmp_path / part / name / f'{n:02d}.png'
                cv2.imwrite(str(path), image.astype(np.uint8))
    (tmp_path / 'images/light/05.png').write_bytes(b'no image')
    weights = get_model(str(DIGITS)).state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'encoder.pth')
    return tmp_path


def commands(data: Path, out: Path, quick: bool) -> list[tuple]:
    encoder, config = data / 'encoder.pth', ('--config', DIGITS)
    reading = '--workers', 0
    if quick:
        embed = 'embed.py', encoder, data / 'images', *config, '--batch-size', 4, *reading
        return [
            (*embed, '--out', out / 'embedded'),
            (*embed, '--out', out / 'embedded'),  # nothing is left to do
            ('pack.py', data / 'images', out / 'packed', '--shard-size', 4, '--processes', 1),
        ]
    sets = '--datasets', '--folder', f'one={data}', '--folder', f'two={data}'
    table = '--out', out / 'table.json', '--cache', out / 'kept'
    return [
        ('transfer.py', encoder, data, *config, *sets, *reading, '--work-dir', out),
        ('evaluate_features.py', DIGITS, encoder, '--draws', 2, '--per-class', 2, *table,
         '--cfg-options', *SMALL),
    ]  # fmt: skip


def nearest(train, test, **kwargs) -> Sweep:
    """The class of the nearest image, in place of many regressions."""
    rows = ((test[0][:, None] - train[0][None]) ** 2).sum(axis=-1).argmin(axis=1)
    return Sweep(1.0, float(train[0].sum()), [1.0], train[1][rows])


def run_all(data: Path, out: Path, quick: bool) -> None:
    for command in commands(data, out, quick):
        try:
            with patch.object(linear, 'swept_linear_probe', nearest):
                tool(*command)
        except SystemExit as end:
            assert not end.code  # a rank that has done its part


def _rank(rank: int, port: int, data: Path, quick: bool) -> None:
    os.environ.update(launched(rank, 2, port), TORCHELASTIC_RUN_ID='run')
    forward, seen = FeatureInferencer.forward, []
    FeatureInferencer.forward = lambda self, batch: seen.append(1) or forward(self, batch)
    run_all(data, data / 'ranks', quick)
    (data / f'batches_{rank}').write_text(str(len(seen)))
    results = command_line.ranks().in_order([rank] * (3 - 2 * rank))  # 3 and 1
    assert list(results) == ([0, 1, 0, 0] if rank == 0 else [])


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in sorted(folder.rglob('*')) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_two_ranks_leave_the_files_of_one_process(data):
    run_all(data, data / 'alone', quick=True)
    half = data / 'ranks' / 'embedded'  # begun by one process, and stopped after two batches
    half.mkdir(parents=True)
    for path in (data / 'alone' / 'embedded').iterdir():
        (half / path.name.replace('features.npy', 'features.partial.npy')).write_bytes(
            path.read_bytes()
        )
    record = json.loads((half / 'embedding.json').read_text())
    (half / 'embedding.json').write_text(json.dumps({**record, 'rows_done': 8, 'unreadable': 0}))
    rows = np.load(half / 'features.partial.npy', mmap_mode='r+')
    rows[8:] = 0
    rows.flush()

    run_ranks(_rank, 2, free_port(), data, True)
    # Of 18 rows that were left, and once each the width of a feature, which rank 0 asks twice.
    assert [(data / f'batches_{rank}').read_text() for rank in (0, 1)] == ['5', '2']
    alone, shared = files(data / 'alone'), files(data / 'ranks')
    assert 'embedded/features.npy' in shared and 'packed/shard-00006.tar' in shared
    assert alone.keys() == shared.keys()
    assert [name for name in alone if alone[name] != shared[name]] == []


def values(path: Path) -> list[tuple]:
    return [(each.protocol, each.value, each.settings) for each in read_run(path).results]


@pytest.mark.slow
def test_two_ranks_find_the_values_of_one_process(data):
    run_all(data, data / 'alone', quick=False)
    run_ranks(_rank, 2, free_port(), data, False)
    for name in ('table.json', 'one-linear-swept.json', 'two-linear-swept.json'):
        assert values(data / 'alone' / name) == values(data / 'ranks' / name)
    kept = [next((data / each / 'kept').glob('*.npz')) for each in ('alone', 'ranks')]
    features = [np.load(path)['features'] for path in kept]
    assert kept[0].name == kept[1].name and np.array_equal(*features)


def _failing(rank: int, port: int, data: Path) -> None:
    os.environ.update(launched(rank, 2, port), TORCHELASTIC_RUN_ID='run')
    images = data / ('images' if rank == 0 else 'val')  # as on a machine with other files
    try:
        tool('embed.py', data / 'encoder.pth', images, '--config', DIGITS, '--out', data / 'out')
    except SystemExit as end:
        (data / f'said_{rank}').write_text(str(end.code))


def test_one_rank_says_what_is_wrong(data):
    run_ranks(_failing, 2, free_port(), data)
    assert (data / 'said_0').read_text() == '1'
    said = (data / 'said_1').read_text()
    assert 'error: rank 1: other images than rank 0: all ranks need the same' in said


def _left_alone(rank: int, port: int, data: Path) -> None:
    os.environ.update(launched(rank, 2, port), TORCHELASTIC_RUN_ID='run')
    if rank == 1:
        command_line.ranks()
        os._exit(0)  # as one that the system has killed
    try:
        command_line.command(lambda _: print(list(command_line.ranks().in_order([0]))))([])
    except SystemExit as end:
        (data / 'said').write_text(str(end.code))


def test_the_end_of_another_rank_is_no_fault_of_ours(tmp_path):
    run_ranks(_left_alone, 2, free_port(), tmp_path)
    said = (tmp_path / 'said').read_text()
    assert 'error: rank 0 stops, because another rank has ended: see its last lines' in said


def test_what_ranks_do_not_share_is_refused(data, monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'run')
    for name, value in launched(0, 4, free_port()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr('simclr_mm.commands.command_line.errors.first_to_fail', lambda: True)
    said = refusal('retrieve.py', data, data / 'a.png')
    assert 'torchrun has started 4 processes, but one process does all the work' in said
    encoder = data / 'encoder.pth'
    said = refusal('transfer.py', encoder, data, '--protocol', 'both')
    assert 'fine-tuning starts its own' in said
