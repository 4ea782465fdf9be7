"""A sweep does each run once, whatever stops it."""

import copy
import csv
import fcntl
import hashlib
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from mmengine.config import Config

from simclr_mm.commands.runs import processes
from simclr_mm.commands.sweep import runs
from simclr_mm.commands.sweep.studies import STUDIES, values_of
from simclr_mm.commands.sweep.table_and_figure import draw, write_table
from simclr_mm.evaluation import EvaluationRun, Result, read_run

DIGITS = Path(__file__).parents[3] / 'configs/simclr_r18-w16_1xb64-coslr-30e_digits.py'
VALUES = values_of(STUDIES['head'], dict(head=['none', 'linear'], width=[8, 16]))


@pytest.fixture(scope='module')
def cfg():
    return Config.fromfile(DIGITS)


def plan(cfg, folder, metric='knn'):
    return runs.plan('head', cfg, VALUES, folder, metric)


def found(value):
    """What a run that ended well found."""
    result = Result('classification', 'Digits', 'test', 'pretrained encoder', 'knn', 'top1', value)
    return EvaluationRun('a.py', 'b.pth', 'c0ffee', 0, 30, [result])


def carry_out(runs, run_one, count=1):
    return dict(
        (run.name, result) for run, result in processes.carry_out(runs, run_one, [''] * count)
    )


def test_only_missing_runs_are_done(cfg, tmp_path):
    asked = []

    def run_one(run, device):
        asked.append(run.name)
        if len(asked) == 2:
            raise processes.RunFailed('out of memory')
        return found(10.0 + len(asked))

    runs = plan(cfg, tmp_path)
    assert [run.name for run in runs] == [
        'head=none,width=',
        'head=linear,width=8',
        'head=linear,width=16',
    ]
    results = carry_out(runs, run_one)
    assert str(results['head=linear,width=8']) == 'out of memory'
    assert not runs[1].result_file.exists()
    assert read_run(runs[0].result_file) == results['head=none,width=']
    assert runs[0].row() == dict(head='none', width='', metric='knn/top1', value=11.0, minutes=0.5)

    again = carry_out(plan(cfg, tmp_path), run_one)  # the failed one, and no other
    assert list(again) == ['head=linear,width=8']
    assert asked == [run.name for run in runs] + ['head=linear,width=8']
    assert carry_out(plan(cfg, tmp_path), run_one) == {}
    # Another evaluation has rows of its own.
    assert list(carry_out(plan(cfg, tmp_path, 'linear'), run_one)) == list(results)


def test_an_interrupted_sweep_starts_nothing_more(cfg, tmp_path):
    asked = []

    def run_one(run, device):
        asked.append(run.name)
        return found(1.0)

    runs = plan(cfg, tmp_path)
    going = processes.carry_out(runs, lambda *a: time.sleep(0.1) or run_one(*a), [''])
    next(going)
    going.close()  # as when Ctrl-C ends the loop
    time.sleep(0.5)
    assert 1 <= len(asked) < 3


def test_a_bug_is_not_a_failed_run(cfg, tmp_path):
    with pytest.raises(ZeroDivisionError):
        carry_out(plan(cfg, tmp_path), lambda *_: 1 / 0)


def test_each_process_has_its_device(cfg, tmp_path, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,7')
    devices = processes.device_of_each(3)
    assert devices == ['4', '7', '4']
    meeting = threading.Barrier(2, timeout=20)
    together = []

    def run_one(run, device):
        together.append(device)
        if len(together) < 3:
            meeting.wait()  # two runs at a time
        return found(0.0)

    for _ in processes.carry_out(plan(cfg, tmp_path), run_one, devices[:2]):
        pass
    assert set(together[:2]) == {'4', '7'}


def test_a_config_is_all_that_a_run_trains_with(cfg, tmp_path):
    run = plan(cfg, tmp_path)[1]
    written = Config.fromfile(run.config)
    assert written.model.neck.num_layers == 1 and written.model.neck.out_channels == 8
    assert written.train_cfg.val_interval == written.train_cfg.max_epochs == 30
    assert written.randomness.seed == 0
    assert run.arguments[0] == str(run.config)


def test_validations_of_a_config_of_iterations_have_their_step(cfg, tmp_path):
    counting = copy.deepcopy(cfg)
    counting.train_cfg = dict(type='simclr_mm.IterBasedTrainLoop', max_iters=7)
    written = Config.fromfile(plan(counting, tmp_path)[0].config)
    assert written.default_hooks.logger.log_metric_by_epoch is False
    assert written.train_cfg.val_interval == 7
    assert 'log_metric_by_epoch' not in runs.cell_config(cfg, {}).default_hooks.logger


def test_a_row_names_the_metric_of_its_result(cfg, tmp_path):
    run = plan(cfg, tmp_path)[0]
    done = found(3.0)
    done.results[0].protocol, done.results[0].metric = 'fine-tuned', 'voc07_map'
    done.write(run.result_file)
    assert run.row()['metric'] == 'fine-tuned/voc07_map'


def test_a_run_that_is_still_at_work_is_not_begun_again(cfg, tmp_path):
    """As after "kill -9" of the sweep, which leaves its trainings."""
    run = plan(cfg, tmp_path)[0]
    run.folder.mkdir(parents=True)
    with open(run.folder / 'log.txt', 'ab') as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        left = subprocess.Popen(['sleep', '60'], stdout=log)
    try:
        trainer = runs.TrainAndScore(tmp_path, threads=1)
        with pytest.raises(processes.RunFailed, match='another process is at'):
            trainer(run, '')
    finally:
        left.kill()
        left.wait()


def test_rows_of_other_settings_are_not_mixed(cfg, tmp_path):
    run = plan(cfg, tmp_path)[1]
    other = copy.deepcopy(cfg)
    other.merge_from_dict({'train_cfg.max_epochs': 5})
    plan(other, tmp_path)  # nothing was trained yet
    assert Config.fromfile(run.config).train_cfg.max_epochs == 5
    run.folder.mkdir(parents=True)
    (run.folder / 'epoch_3.pth').touch()
    with pytest.raises(ValueError, match='epoch_3.pth comes of it: give another'):
        plan(cfg, tmp_path)


def test_a_row_of_another_version(cfg, tmp_path):
    run = plan(cfg, tmp_path)[0]
    run.folder.mkdir(parents=True)
    run.result_file.write_text('{"value": 20.0}')
    with pytest.raises(ValueError, match='knn.json is no result of this version'):
        run.row()


def test_knn_needs_a_validation(cfg, tmp_path):
    bare = copy.deepcopy(cfg)
    bare.val_evaluator = None
    with pytest.raises(ValueError, match='KNNAccuracy'):
        plan(bare, tmp_path)


def test_a_process_that_fails_tells_its_last_line(cfg, tmp_path):
    run = plan(cfg, tmp_path)[0]
    (tmp_path / 'train.py').write_text('raise SystemExit("train.py: error: no data")')
    trainer = runs.TrainAndScore(tmp_path, threads=1)
    with pytest.raises(processes.RunFailed, match=r'error: no data \(exit code 1; see .*'):
        trainer(run, '')
    assert not trainer.running


def test_value_is_that_of_the_last_epoch(cfg, tmp_path):
    run = plan(cfg, tmp_path)[0]
    (tmp_path / 'train.py').write_text('')  # ends well, at once
    trainer = runs.TrainAndScore(tmp_path, threads=1)
    log = run.folder / '20260101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"loss": 1, "step": 30}\n{"knn/top1": 20.0, "step": 15}\n')
    with pytest.raises(processes.RunFailed, match='left no checkpoint'):
        trainer(run, '')
    state = dict(weight=torch.arange(3.0))
    torch.save(dict(state_dict=state), run.folder / 'epoch_30.pth')
    (run.folder / 'last_checkpoint').write_text(str(run.folder / 'epoch_30.pth'))
    with pytest.raises(processes.RunFailed, match='no knn.top1 of a validation at its end'):
        trainer(run, '')
    with log.open('a') as file:
        file.write('{"knn/top1": 21.5, "step": 30}\n')
    older = run.folder / '20250101_000000/vis_data/scalars.json'
    older.parent.mkdir(parents=True)
    older.write_text('{"knn/top1": 5.0, "step": 30}\n')
    done = trainer(run, '')
    (result,) = done.results
    assert (
        result.dataset,
        result.split,
        result.protocol,
        result.metric,
        result.value,
        result.unit,
    ) == ('Digits', 'test', 'knn', 'top1', 21.5, '%')
    assert result.settings == dict(k=20, temperature=0.07)
    assert done.study == dict(study='head', head='none', width='')
    assert (done.seed, done.config) == (0, str(run.config))
    assert done.command == ' '.join(['python', 'tools/train.py', *run.arguments])
    assert (
        done.checkpoint_sha256
        == hashlib.sha256(
            b'weight torch.float32 (3,)' + state['weight'].numpy().tobytes()
        ).hexdigest()
    )


def test_stop_ends_what_is_running(cfg, tmp_path):
    run = plan(cfg, tmp_path)[0]
    (tmp_path / 'train.py').write_text('import time; time.sleep(60)')
    trainer = runs.TrainAndScore(tmp_path, threads=1)
    results = []

    def work():
        try:
            trainer(run, '')
        except processes.RunFailed as error:
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not trainer.running:
        time.sleep(0.01)
    trainer.stop()
    thread.join(20)
    assert len(results) == 1


@pytest.mark.parametrize(
    'name, asked',
    [
        ('head', dict(head=['none', 'linear'], width=[8, 16])),
        ('lr-scaling', dict(batch=[8, 16])),
        ('color-strength', dict(strength=['1/8', '1'])),
        ('augmentations', dict(first=['crop', 'color'], second=['color', 'crop'])),
    ],
)
def test_table_and_figure(name, asked, cfg, tmp_path):
    study = STUDIES[name]
    values = values_of(study, asked)
    names = [axis.name for axis in study.axes]
    rows = [
        dict(zip(names, labels), metric='knn/top1', value=20.0 + k, minutes=0.1, command=['python'])
        for k, (labels, _) in enumerate(study.cells(cfg, *values))
    ]
    write_table(tmp_path / 'a.csv', study, rows)
    with open(tmp_path / 'a.csv') as file:
        read = list(csv.DictReader(file))
    assert [row['value'] for row in read] == [str(row['value']) for row in rows]
    assert list(read[0]) == [*names, 'metric', 'value', 'minutes']
    for some in (rows, rows[:1]):  # also while most is missing
        draw(tmp_path / 'a.png', study, values, some, 'knn', 'note')
        assert imread(tmp_path / 'a.png').shape[0] > 200
