"""tools/few_labels.py: which runs it plans, and what it makes of their results."""

import csv
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, DIGITS
from helpers.tools import refusal, tool
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from simclr_mm import get_model
from simclr_mm.commands.evaluate.loop_results import classifier_protocol
from simclr_mm.commands.few_labels.plan import (
    METHODS,
    TrainAndTest,
    find_config,
    label_of,
    read_from,
)
from simclr_mm.commands.runs import RunFailed
from simclr_mm.evaluation import EvaluationRun, Result, read_run

FINETUNE = CONFIGS / 'benchmarks/r18-w16_1xb25-finetune-coslr-60e_digits-5perclass.py'
DISTIL = CONFIGS / 'benchmarks/r18-w16_1xb64-selfdistil-coslr-10e_digits.py'


@pytest.fixture(scope='module')
def encoder(tmp_path_factory):
    """Random weights under the name of the digits config, which the file holds."""
    model = get_model(str(DIGITS))
    path = tmp_path_factory.mktemp('weights') / f'{DIGITS.stem}.pth'
    meta = dict(cfg=model._config.pretty_text)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


@pytest.fixture
def stand_in(monkeypatch):
    """Runs that end at once, with 50 + 3 x seed; the names of those that were asked for."""
    asked, failing = [], []

    def do(self, run, device):
        asked.append(run.name)
        if run.name in failing:
            raise RunFailed('out of memory')
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / 'epoch_1.pth').touch()
        (run.folder / 'last_checkpoint').write_text(str(run.folder / 'epoch_1.pth'))
        result = Result('classification', 'Digits', 'test', 'checkpoint', 'x', 'top1', 50.0)
        result.value += 3 * run.labels['seed']
        return EvaluationRun(str(run.config), 'b.pth', 'c0ffee', 0, 30, [result])

    monkeypatch.setattr(TrainAndTest, 'do', do)
    return asked, failing


def call(encoder, work_dir, *args):
    tool('few_labels.py', encoder, '--work-dir', work_dir, *args)


def config(work_dir, method, label='5perclass', seed=0):
    name = f'method={method},labels={label},seed={seed}.py'
    return Config.fromfile(work_dir / 'configs' / name)


def test_the_configs_of_the_runs(encoder, tmp_path, stand_in):
    call(encoder, tmp_path, '--labels', '5perclass', '10%', '--seeds', 2, '--epochs', '10%=7')
    assert len(stand_in[0]) == 5 * 2 * 2
    base, rate = Config.fromfile(FINETUNE), 0.05 * 25 / 256

    scratch = config(tmp_path, 'scratch', seed=1)
    assert (scratch.custom_hooks, scratch.model.backbone.init_cfg) == ([], None)
    assert scratch.optim_wrapper.optimizer.lr == pytest.approx(10 * rate)
    assert (scratch.randomness.seed, scratch.train_dataloader.dataset.seed) == (1, 1)

    zero, one = (config(tmp_path, f'selector-{number}') for number in (0, 1))
    for cfg in (zero, one):
        assert cfg.model.backbone.init_cfg.checkpoint == str(encoder)
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(rate)
        assert cfg.train_cfg.max_epochs == cfg.train_cfg.val_interval == 60
        assert cfg.train_dataloader.dataset.per_class == 5
    assert zero.model.neck == base.model.neck
    head = dict(type='simclr_mm.ProjectionNeck', in_channels=128, num_layers=2, out_channels=64)
    assert one.model.neck == dict(head, until=1)
    assert config(tmp_path, 'selector-1', '10pct').train_cfg.max_epochs == 7

    student = config(tmp_path, 'distilled', '10pct', 1)
    teacher = tmp_path / 'runs/method=selector-1,labels=10pct,seed=1/epoch_1.pth'
    assert student.model.teacher == str(teacher)
    assert student.model.backbone.init_cfg.checkpoint == str(encoder)
    assert student.train_cfg.max_epochs == 10
    assert classifier_protocol(student)[0] == 'distilled'


@pytest.mark.parametrize('selector', [0, 1])
def test_a_config_of_any_selector(encoder, tmp_path, stand_in, selector):
    """The rows differ in the layer, whichever the given config is for."""
    name = f'r18-w16_1xb64-finetune-proj{selector}-coslr-30e_cifar10-10pct.py'
    methods = 'scratch', 'selector-0', 'selector-1'
    given = '--finetune', CONFIGS / 'benchmarks' / name, '--methods', *methods, '--seeds', 1
    call(encoder, tmp_path, *given)
    necks = [config(tmp_path, method, '10pct').model.neck for method in methods]
    assert [neck.until for neck in necks] == [0, 0, 1]
    assert {neck.in_channels for neck in necks} == {128}
    assert config(tmp_path, 'selector-0', '10pct').train_dataloader.num_workers == 0  # in memory


def test_the_linear_classifier_sees_the_images_of_fine_tuning(encoder, tmp_path, stand_in):
    call(encoder, tmp_path, '--labels', '5perclass', '--seeds', 2, '--methods', 'linear', 'scratch')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        linear = DATASETS.build(config(tmp_path, 'linear', seed=1).val_dataloader.dataset)
        tuned = DATASETS.build(config(tmp_path, 'scratch', seed=1).train_dataloader.dataset)
        other = DATASETS.build(config(tmp_path, 'scratch', seed=0).train_dataloader.dataset)
    assert len(linear) == 50 + 500
    rows = [[each['row'] for each in set_.data_list] for set_ in (linear.gallery, tuned, other)]
    assert rows[0] == rows[1] != rows[2]
    assert linear[0]['inputs'].shape == (3, 16, 16)


def test_a_linear_classifier_belongs_to_one_encoder(encoder, tmp_path, stand_in):
    args = '--labels', '5perclass', '--seeds', 1, '--methods', 'linear'
    call(encoder, tmp_path, *args)
    call(encoder, tmp_path, *args)
    assert len(stand_in[0]) == 1
    (tmp_path / 'other').mkdir()
    other = shutil.copy(encoder, tmp_path / 'other' / encoder.name)
    said = refusal('few_labels.py', other, '--work-dir', tmp_path, *args)
    assert 'was made from another config, checkpoint or --cfg-options' in said


@pytest.mark.parametrize('method', ['linear', 'selector-0'])
def test_a_checkpoint_that_was_trained_anew_has_other_runs(encoder, tmp_path, stand_in, method):
    file = Path(shutil.copy(encoder, tmp_path / encoder.name))
    args = '--labels', '5perclass', '--seeds', 1, '--methods', method
    call(file, tmp_path / 'work', *args)
    content = torch.load(file, weights_only=True)
    content['state_dict']['backbone.conv1.weight'] += 1
    torch.save(content, file)
    said = refusal('few_labels.py', file, '--work-dir', tmp_path / 'work', *args)
    assert 'holds runs of other weights' in said and 'give another --work-dir' in said


def test_data_in_memory_read_the_folder_themselves(tmp_path):
    cifar = Config.fromfile(CONFIGS / 'benchmarks/r18-w16_1xb64-finetune-coslr-60e_cifar10-1pct.py')
    read_from(cifar, str(tmp_path))
    images = cifar.train_dataloader.dataset.dataset
    assert (images.type, images.data_root) == ('simclr_mm.CIFAR10', str(tmp_path))
    assert cifar.val_dataloader.dataset.data_root == str(tmp_path)

    for part in ('train', 'val'):
        for name in 'ab':
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / '1.png').touch()
    digits = Config.fromfile(FINETUNE)  # which scikit-learn holds
    read_from(digits, str(tmp_path))
    subset = digits.train_dataloader.dataset
    assert (subset.type, subset.dataset.type) == ('simclr_mm.LabelSubset', 'simclr_mm.ImageFolder')
    assert digits.model.head.num_classes == 2


@pytest.mark.parametrize(
    'algorithm, task, found',
    [
        ('simclr', 'finetune', 'r50_8xb512-finetune-coslr-60e_in1k-1pct'),
        ('simclr-v2', 'finetune', 'r50_8xb128-finetune-proj1-coslr-60e_in1k-1pct'),
        ('simclr', 'selfdistil', 'r50_8xb512-selfdistil-coslr-400e_in1k'),
    ],
)
def test_the_configs_of_an_encoder(algorithm, task, found):
    encoder, ending = f'{algorithm}_r50_16xb256-coslr-800e_in1k', '-1pct' * (task == 'finetune')
    assert Path(find_config(encoder, task, ending, '--flag')).stem == found


@pytest.mark.parametrize('data', ['digits-5perclass', 'cifar10-10pct', 'in1k-1pct'])
def test_a_given_config_has_the_label_of_its_name(data):
    path, *_ = (CONFIGS / 'benchmarks').glob(f'*-finetune-coslr-*_{data}.py')
    assert label_of(Config.fromfile(path), str(path)) == data.rpartition('-')[2]


def test_the_table_by_hand(encoder, tmp_path, stand_in, capsys):
    args = '--labels', '5perclass', '--methods', 'scratch', 'selector-1', 'distilled'
    stand_in[1].append('method=selector-1,labels=5perclass,seed=1')
    with pytest.raises(SystemExit, match='1 runs failed|2 runs failed'):
        call(encoder, tmp_path, *args)
    assert 'seed=1 has no result, so it teaches no student' in capsys.readouterr().out
    # 50, 53 and 56: mean 53, deviation 3, and without the second 53 and sqrt(18).
    table = (tmp_path / 'few_labels.md').read_text().splitlines()
    assert table[0] == '| Method | 5 a class |'
    assert table[2] == f'| {METHODS["scratch"]} | 53.0 ± {3 / math.sqrt(3):.1f} |'
    assert table[3] == f'| {METHODS["selector-1"]} | 53.0 ± {math.sqrt(18) / math.sqrt(2):.1f} |'

    stand_in[1].clear()
    stand_in[0].clear()
    call(encoder, tmp_path, *args)  # the failed one and its student, and no other
    assert stand_in[0] == [
        f'method={m},labels=5perclass,seed=1' for m in ('selector-1', 'distilled')
    ]
    rows = list(csv.DictReader((tmp_path / 'few_labels.csv').open()))
    assert len(rows) == 9
    assert {row['value'] for row in rows} == {'50.0', '53.0', '56.0'}


@pytest.mark.parametrize(
    'args, message',
    [
        (
            ['--labels', '2%'],
            'has no config with the name r18-w16_.*digits-2pct.py: choose 10%, 5perclass, or name',
        ),
        (['--labels', '10%', '--methods', 'distilled'], 'distilled needs its teacher, selector-1'),
        (['--labels', '10%', '--epochs', '1%=3'], '--epochs 1pct: name one of 10pct, distil'),
        (['--labels', '10%', '--epochs', '10%=x'], '--epochs 10pct=x: give a whole number'),
        (['--finetune', DISTIL], 'trains on all labels: name one with a LabelSubset'),
        (['--finetune', DIGITS], 'trains no classifier'),
        (['--finetune', FINETUNE, FINETUNE], 'another one trains on 5perclass too'),
        (['--labels', '10%', '--data', 'no/where'], '--data: there is no folder .*no/where'),
    ],
)
def test_a_mistake_is_named(encoder, tmp_path, stand_in, args, message):
    line = refusal('few_labels.py', encoder, '--work-dir', tmp_path, *args)
    assert re.search(message, line), line
    assert not stand_in[0]


def test_an_encoder_without_a_middle(tmp_path, stand_in):
    cfg = Config.fromfile(DIGITS)
    cfg.model.neck.num_layers = 1
    model = get_model(cfg)
    path = tmp_path / f'{DIGITS.stem}.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=cfg.pretty_text)), path)
    line = refusal('few_labels.py', path, '--work-dir', tmp_path, '--labels', '10%')
    assert 'no projection head of two layers or more' in line


@pytest.mark.slow
def test_for_real(encoder, tmp_path):
    # The others are selector-1 with another number, and without an encoder.
    methods = ['distilled', 'linear', 'selector-1']
    args = '--labels', '5perclass', '--seeds', 1, '--epochs', '5perclass=1', 'distil=1'
    call(encoder, tmp_path, *args, '--processes', 2, '--methods', *methods)
    results = {}
    for file in tmp_path.glob('runs/*/*.json'):
        run = read_run(file)
        if run is not None:
            results[run.study['method']] = run.results[0]
    assert sorted(results) == methods
    assert results['linear'].value > 30  # of ten classes, on random features
    assert results['distilled'].protocol == 'distilled'
