"""The runs of a study, their results, and what is drawn of them."""

import copy
import csv
import hashlib

import pytest
import torch
from helpers import DIGITS
from matplotlib.image import imread
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from simclr_mm.commands import train as train_command
from simclr_mm.commands.runs import RunFailed, write_table
from simclr_mm.commands.sweep import runs
from simclr_mm.commands.sweep.command import draw
from simclr_mm.commands.sweep.studies import STUDIES, values_of

VALUES = values_of(STUDIES['head'], dict(head=['none', 'linear'], width=[8, 16]))


@pytest.fixture(scope='module')
def cfg():
    return Config.fromfile(DIGITS)


def plan(cfg, folder, metric='knn'):
    return runs.plan('head', cfg, VALUES, folder, metric)


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


def test_knn_needs_a_validation(cfg, tmp_path):
    bare = copy.deepcopy(cfg)
    bare.val_evaluator = None
    with pytest.raises(ValueError, match='KNNAccuracy'):
        plan(bare, tmp_path)


def test_values_that_make_no_cell(cfg, tmp_path):
    values = [['l2-norm'], [10]]  # the study has it without the norm alone
    with pytest.raises(ValueError, match='no cell that combines these values'):
        runs.plan('temperature', cfg, values, tmp_path, 'knn')


def test_value_is_that_of_the_last_epoch(cfg, tmp_path, monkeypatch):
    run = plan(cfg, tmp_path)[0]
    monkeypatch.setattr('simclr_mm.commands.runs.processes._TOOLS', tmp_path)
    (tmp_path / 'train.py').write_text('')  # ends well, at once
    trainer = runs.TrainAndScore(1)
    log = run.folder / '20260101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"loss": 1, "step": 30}\n{"knn/top1": 20.0, "step": 15}\n')
    with pytest.raises(RunFailed, match='wrote no checkpoint'):
        trainer.do(run, '')
    state = dict(weight=torch.arange(3.0))
    torch.save(dict(state_dict=state), run.folder / 'epoch_30.pth')
    (run.folder / 'last_checkpoint').write_text(str(run.folder / 'epoch_30.pth'))
    with pytest.raises(RunFailed, match='no knn.top1 of a validation at its end'):
        trainer.do(run, '')
    with log.open('a') as file:
        file.write('{"knn/top1": 21.5, "step": 30}\n')
    older = run.folder / '20250101_000000/vis_data/scalars.json'
    older.parent.mkdir(parents=True)
    older.write_text('{"knn/top1": 5.0, "step": 30}\n')
    done = trainer.do(run, '')
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
    assert done.command == ' '.join(['simclr-mm', 'train', *run.arguments])
    assert (
        done.checkpoint_sha256
        == hashlib.sha256(
            b'weight torch.float32 (3,)' + state['weight'].numpy().tobytes()
        ).hexdigest()
    )


def test_a_run_killed_inside_its_validation_goes_on(cfg, tmp_path, monkeypatch):
    """Its last checkpoint is saved; the same command makes up the validation."""
    small = copy.deepcopy(cfg)
    small.merge_from_dict(
        {
            'train_cfg.max_epochs': 1,
            'param_scheduler': [],
            'train_dataloader.dataset.indices': 64,
            'val_dataloader.dataset.gallery_per_class': 4,
        }
    )

    def train(self, run, device):
        monkeypatch.setattr('sys.argv', ['train.py', *run.arguments])
        with pytest.MonkeyPatch.context() as patch:
            if not list(run.folder.glob('*.pth')):
                patch.setattr('mmengine.runner.ValLoop.run', killed)
            train_command.main()
        return find_latest_checkpoint(str(run.folder))

    def killed(self):
        raise RunFailed('killed')

    monkeypatch.setattr(runs.TrainAndScore, 'train', train)
    trainer = runs.TrainAndScore(1)
    run = plan(small, tmp_path)[0]
    with pytest.raises(RunFailed, match='killed'):
        trainer.do(run, '')
    assert (run.folder / 'epoch_1.pth').is_file()
    assert trainer.do(run, '').results[0].value > 10

    def call(self, run, arguments, device):
        monkeypatch.setattr('sys.argv', ['-c', *arguments[2:]])
        exec(arguments[1], {})

    monkeypatch.setattr(runs.TrainAndScore, 'call', call)
    probed = trainer.do(run._replace(metric='linear'), '').results[0]
    assert (probed.protocol, probed.settings) == ('linear', dict(penalty=1.0))
    assert 10 < probed.value <= 100


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
    write_table(tmp_path / 'a.csv', [axis.name for axis in study.axes], rows)
    with open(tmp_path / 'a.csv') as file:
        read = list(csv.DictReader(file))
    assert [row['value'] for row in read] == [str(row['value']) for row in rows]
    assert list(read[0]) == [*names, 'metric', 'value', 'minutes']
    for some in (rows, rows[:1]):  # also while most is missing
        draw(tmp_path / 'a.png', study, values, some, 'knn', 'note')
        assert imread(tmp_path / 'a.png').shape[0] > 200
