"""Each run is done once, whatever stops the program."""

import copy
import fcntl
import subprocess
import threading
import time

import pytest
import torch
from helpers import DIGITS
from mmengine.config import Config

from simclr_mm.commands.runs import Run, RunFailed, TrainAndEvaluate
from simclr_mm.commands.runs.processes import device_of_each
from simclr_mm.evaluation import EvaluationRun, Result, read_run


@pytest.fixture(scope='module')
def cfg():
    return Config.fromfile(DIGITS)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A folder whose train.py stands in for the package's."""
    monkeypatch.setattr('simclr_mm.commands.runs.processes._TOOLS', tmp_path)
    return tmp_path


def plan(cfg, folder, metric='knn'):
    """Three runs whose configs are written."""
    runs = [Run('widths', dict(width=width), folder, metric) for width in (8, 16, 32)]
    for run in runs:
        cell = copy.deepcopy(cfg)
        cell.model.neck.out_channels = run.labels['width']
        run.write_config(cell)
    return runs


class Trainer(TrainAndEvaluate):
    def evaluate(self, run, checkpoint, device):
        raise AssertionError('nothing here ends well')


def found(value):
    """What a run that ended well found."""
    result = Result('classification', 'Digits', 'test', 'pretrained encoder', 'knn', 'top1', value)
    return EvaluationRun('a.py', 'b.pth', 'c0ffee', 0, 30, [result])


def outcomes(runs, run_one, processes=1):
    """The outcome of each run, done by ``run_one``."""
    trainer, ended = Trainer(processes), {}
    trainer.do = run_one
    trainer.do_missing(runs, 'test', lambda run, outcome: ended.update({run.name: outcome}))
    return ended


def test_only_missing_runs_are_done(cfg, tmp_path):
    asked = []

    def run_one(run, device):
        asked.append(run.name)
        if len(asked) == 2:
            raise RunFailed('out of memory')
        return found(10.0 + len(asked))

    runs = plan(cfg, tmp_path)
    assert [run.name for run in runs] == ['width=8', 'width=16', 'width=32']
    results = outcomes(runs, run_one)
    assert str(results['width=16']) == 'out of memory'
    assert not runs[1].result_file.exists()
    assert read_run(runs[0].result_file) == results['width=8']
    assert runs[0].row() == dict(width=8, metric='knn/top1', value=11.0, minutes=0.5)

    again = outcomes(plan(cfg, tmp_path), run_one)  # the failed one, and no other
    assert list(again) == ['width=16']
    assert asked == [run.name for run in runs] + ['width=16']
    assert outcomes(plan(cfg, tmp_path), run_one) == {}
    # Another evaluation has rows of its own.
    assert outcomes(plan(cfg, tmp_path, 'linear'), run_one).keys() == results.keys()


def test_an_interrupted_sweep_starts_nothing_more(cfg, tmp_path):
    asked, workers = [], set()
    second, release = threading.Event(), threading.Event()

    def run_one(run, device):
        asked.append(run.name)
        workers.add(threading.current_thread())
        if len(asked) == 2:
            second.set()
            release.wait(20)
        return found(1.0)

    def interrupt(run, outcome):
        assert second.wait(20)
        raise KeyboardInterrupt  # while the second run is at work

    trainer = Trainer(1)
    trainer.do = run_one
    with pytest.raises(KeyboardInterrupt):
        trainer.do_missing(plan(cfg, tmp_path), 'test', interrupt)
    release.set()
    for worker in workers:
        worker.join(20)
    assert asked == ['width=8', 'width=16']


def test_a_bug_is_not_a_failed_run(cfg, tmp_path):
    with pytest.raises(ZeroDivisionError):
        outcomes(plan(cfg, tmp_path), lambda *_: 1 / 0)


def test_each_process_has_its_device(cfg, tmp_path, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,7')
    assert device_of_each(3) == ['4', '7', '4']
    meeting = threading.Barrier(2, timeout=20)
    together = []

    def run_one(run, device):
        together.append(device)
        if len(together) < 3:
            meeting.wait()  # two runs at a time
        return found(0.0)

    outcomes(plan(cfg, tmp_path), run_one, 2)
    assert set(together[:2]) == {'4', '7'}


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
        with pytest.raises(RunFailed, match='another process is'):
            Trainer(1).do(run, '')
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
    with pytest.raises(ValueError, match='epoch_3.pth comes from it: give another'):
        plan(cfg, tmp_path)


def test_workers_are_those_of_the_last_call(cfg, tmp_path):
    run = plan(cfg, tmp_path)[1]
    run.folder.mkdir(parents=True)
    (run.folder / 'epoch_3.pth').touch()
    other = copy.deepcopy(cfg)
    other.train_dataloader.update(num_workers=3, persistent_workers=True)
    plan(other, tmp_path)
    assert Config.fromfile(run.config).train_dataloader.num_workers == 3


def test_a_plain_state_dict_is_hashed_too(cfg, tmp_path, monkeypatch):
    run = plan(cfg, tmp_path)[0]
    torch.save({'backbone.conv1.weight': torch.ones(2)}, tmp_path / 'plain.pth')
    monkeypatch.setattr(Trainer, 'train', lambda *_: str(tmp_path / 'plain.pth'))
    monkeypatch.setattr(Trainer, 'evaluate', lambda *_: found(1.0).results[0])
    assert len(Trainer(1).do(run, '').checkpoint_sha256) == 64


def test_a_row_of_another_version(cfg, tmp_path):
    run = plan(cfg, tmp_path)[0]
    run.folder.mkdir(parents=True)
    run.result_file.write_text('{"value": 20.0}')
    with pytest.raises(ValueError, match='knn.json is no result of this version'):
        run.row()


def test_a_process_that_fails_tells_its_last_line(cfg, tmp_path, tools):
    run = plan(cfg, tmp_path)[0]
    (tools / 'train.py').write_text('raise SystemExit("train.py: error: no data")')
    trainer = Trainer(1)
    with pytest.raises(RunFailed, match=r'error: no data \(exit code 1; see .*'):
        trainer.do(run, '')
    assert not trainer.running


def test_stop_ends_what_is_running(cfg, tmp_path, tools):
    run = plan(cfg, tmp_path)[0]
    (tools / 'train.py').write_text('import time; time.sleep(60)')
    trainer = Trainer(1)
    results = []

    def work():
        try:
            trainer.do(run, '')
        except RunFailed as error:
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not trainer.running:
        time.sleep(0.01)
    trainer.stop()
    thread.join(20)
    assert len(results) == 1


def test_a_folder_that_was_moved_is_read_where_it_is(cfg, tmp_path, tools):
    run = plan(cfg, tmp_path)[0]
    run.folder.mkdir(parents=True)
    (run.folder / 'epoch_3.pth').touch()
    (run.folder / 'last_checkpoint').write_text('/where/it/was/epoch_3.pth')
    (tools / 'train.py').touch()
    assert Trainer(1).train(run, '') == str(run.folder / 'epoch_3.pth')


def test_the_place_of_a_teacher_is_no_other_config(cfg, tmp_path):
    """Its folder may be moved; a resumed training compares its hash."""
    (run, *_), moved = plan(cfg, tmp_path), copy.deepcopy(cfg)
    moved.model.neck.out_channels = run.labels['width']
    for place in ('/old/epoch_1.pth', '/new/epoch_1.pth'):
        moved.model.teacher = place
        run.write_config(moved)
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / 'epoch_1.pth').touch()
    assert Config.fromfile(run.config).model.teacher == '/new/epoch_1.pth'
