"""Fine-tuning as a grid of configs: what they say, and one that is trained."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from simclr_mm.apis import build_encoder
from simclr_mm.commands.runs import Run, RunFailed
from simclr_mm.commands.transfer.dataset_table import TRANSFER_DATASETS, own_folder
from simclr_mm.commands.transfer.finetune import GRIDS, FineTune, finetune_transfer, plan
from simclr_mm.commands.transfer.finetune_config import (
    BORDER,
    LOGGED,
    Training,
    finetune_config,
    save_backbone,
)
from simclr_mm.commands.transfer.linear import prepared_for
from simclr_mm.engine import build_runner
from simclr_mm.evaluation import PRETRAINED, EvaluationRun, Result, read_run

CONFIG = Path(__file__).parents[3] / 'configs' / 'simclr_r18-w16_1xb64-coslr-30e_digits.py'


@pytest.fixture(scope='module')
def encoder():
    torch.manual_seed(0)
    return prepared_for(build_encoder(Config.fromfile(CONFIG)), 14, BORDER)


@pytest.fixture(scope='module')
def weights(encoder, tmp_path_factory):
    file = tmp_path_factory.mktemp('e') / 'e.pth'
    save_backbone(encoder, file)
    return file


@pytest.fixture(scope='module')
def voc(tmp_path_factory):
    """Two classes by colour, in train, val and test; one image has both, one none."""
    folder = tmp_path_factory.mktemp('root') / 'VOC2007'
    for name in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n in range(12):
        shown = [('cat', n % 4 in (0, 2), 0), ('dog', n % 4 in (1, 2), 0)]
        if n % 4 == 3:
            shown = [('cat', True, 1)]  # difficult
        red, blue = (
            any(name == each and there for each, there, _ in shown) for name in ('cat', 'dog')
        )
        image = rng.integers(0, 60, (16, 16, 3)) + [180 * blue, 0, 180 * red]
        cv2.imwrite(str(folder / f'JPEGImages/{n}.jpg'), image.astype(np.uint8))
        objects = ''.join(
            f'<object><name>{name}</name><difficult>{hard}</difficult></object>'
            for name, there, hard in shown
            if there
        )
        (folder / f'Annotations/{n}.xml').write_text(f'<annotation>{objects}</annotation>')
    for split, numbers in (
        ('train', range(4)),
        ('val', range(4, 8)),
        ('trainval', range(8)),
        ('test', range(8, 12)),
    ):
        lines = ''.join(f'{n}\n' for n in numbers)
        (folder / f'ImageSets/Main/{split}.txt').write_text(lines)
    return folder


def test_grid_of_the_paper():
    """Sec. B.8.1."""
    rates, decays = GRIDS['paper']
    assert rates == pytest.approx([1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2, 10**-1.5, 0.1])
    assert decays == pytest.approx([0, 1e-6, 10**-5.5, 1e-5, 10**-4.5, 1e-4, 10**-3.5, 1e-3])
    for some, all_of_them in zip(GRIDS['small'], GRIDS['paper']):
        assert all(any(np.isclose(a, b) for b in all_of_them) for a in some)


def test_config_of_a_cell(encoder, weights, tmp_path):
    """Sec. B.8.1; 160 images are 40 or 160 steps an epoch, or one."""
    for part, count in (('train', 100), ('test', 2)):
        for name in 'ab':
            (tmp_path / part / name).mkdir(parents=True)
            for n in range(count):
                (tmp_path / part / name / f'{n}.jpg').touch()
    dataset = own_folder('mine', tmp_path)
    parts = dataset.parts(tmp_path, seed=0)
    momenta = []
    for batch in (4, 1, 1000):
        training = Training(steps=7, batch=batch, workers=0)
        cfg = finetune_config(encoder, weights, dataset, parts.fit, parts.validation, training)
        momenta.append(cfg.model.backbone.norm_cfg.momentum)
    assert momenta == [0.1, 1 / 16, 0.1]  # 1 - max(1 - 10 / s, 0.9)
    training = Training(steps=7, batch=1, workers=0)
    cfg = finetune_config(encoder, weights, dataset, parts.train, parts.test, training)
    assert cfg.model.backbone.norm_cfg.momentum == 10 / 200
    assert cfg.train_dataloader.batch_size == 1
    assert cfg.train_dataloader.drop_last  # each step has a whole batch
    assert (cfg.train_cfg.max_iters, cfg.model.head.num_classes) == (7, 2)
    crop = cfg.train_dataloader.dataset.pipeline[1]
    assert (crop.type, crop.scale) == ('RandomResizedCrop', 14)
    resize = cfg.val_dataloader.dataset.pipeline[1]
    assert (resize.scale, resize.interpolation) == (16, 'bicubic')
    run = plan(cfg, [(0.01, 1e-5)], tmp_path / 'work', 'top1')[0]
    optimizer = Config.fromfile(run.config).optim_wrapper.optimizer
    assert (optimizer.type, optimizer.momentum, optimizer.nesterov) == ('SGD', 0.9, True)
    assert optimizer.lr == 0.01
    assert optimizer.weight_decay == pytest.approx(1e-3)  # divided by the rate


@pytest.fixture
def trained(monkeypatch):
    """Trains in this process; the names of the runs."""
    names = []
    # All begin within one second, as they may: MMEngine would take two experiments of one
    # config file, one in validation/ and one in test/, for one experiment with one log.
    monkeypatch.setattr('mmengine.runner.runner.time.strftime', lambda *_: '20260101_000000')

    def train(self, run, device):
        cfg = Config.fromfile(run.config)
        cfg.work_dir = str(run.folder)
        cfg.experiment_name = f'{run.work_dir.name}-{run.name}'
        build_runner(cfg).train()
        names.append(f'{run.work_dir.name}/{run.name}')
        return find_latest_checkpoint(str(run.folder))

    monkeypatch.setattr(FineTune, 'train', train)
    return names


def test_voc_is_tuned_chosen_and_scored(encoder, weights, voc, tmp_path, trained):
    dataset = TRANSFER_DATASETS['voc2007']
    parts = dataset.parts(dataset.find(voc.parent), seed=0)
    grid = [1e-3, 0.1], [0.0]
    training = Training(steps=4, batch=4, workers=0)

    def tune():
        return finetune_transfer(encoder, weights, dataset, parts, grid, training, tmp_path, 1)

    (result,) = tune()
    cells = ['validation/lr=0.001,decay=0', 'validation/lr=0.1,decay=0']
    assert trained[:2] == cells and len(trained) == 3
    values = {
        run: read_run(next(tmp_path.glob(f'*/validation/runs/{run}/*.json'))).results[0]
        for run in ('lr=0.001,decay=0', 'lr=0.1,decay=0')
    }
    best = max(values, key=lambda run: values[run].value)
    assert trained[2] == f'test/{best}'
    last = Config.fromfile(next(tmp_path.glob(f'*/test/configs/{best}.py')))
    assert last.train_dataloader.dataset.split == 'trainval'  # all images
    assert last.val_dataloader.dataset.split == 'test'
    assert result.settings['lr'] == float(best[3:].split(',')[0])
    assert result.settings['validation'] == values[best].value
    assert result.settings['cells'] == 2
    assert {(each.dataset, each.split) for each in values.values()} == {('VOC2007', 'validation')}
    assert (result.metric, result.split) == ('voc07_map', 'test')
    assert 0 < result.value <= 100
    assert tune() == [result] and len(trained) == 3  # nothing is done again
    encoder.model.backbone.conv1.weight.data.mul_(0.5)  # another encoder, the same folder
    tune()
    assert len(trained) == 6


def test_a_failed_run_is_told(encoder, weights, voc, tmp_path, monkeypatch):

    def train(self, run, device):
        raise RunFailed('out of memory')

    monkeypatch.setattr(FineTune, 'train', train)
    dataset = TRANSFER_DATASETS['voc2007']
    parts = dataset.parts(voc, seed=0)
    with pytest.raises(RunFailed, match='1 of 1 runs failed, lr=.*: out of memory'):
        finetune_transfer(
            encoder,
            weights,
            dataset,
            parts,
            ([0.1], [0.0]),
            Training(steps=1, batch=4, workers=0),
            tmp_path,
            1,
        )


def test_cells_that_diverge_are_counted_and_not_chosen(
    encoder, weights, voc, tmp_path, monkeypatch, capsys
):
    def do(self, run, device):
        if run.labels['lr'] != '0.01':
            run.folder.mkdir(parents=True, exist_ok=True)
            (run.folder / 'non_finite_step_3.json').touch()
            raise RunFailed('step 3: loss or gradient is not finite')
        result = Result('transfer', 'VOC2007', 'test', PRETRAINED, 'fine-tuned', run.metric, 30.0)
        return EvaluationRun(str(run.config), 'b.pth', 'c0ffee', 0, 30, [result])

    monkeypatch.setattr(FineTune, 'do', do)
    monkeypatch.setattr(Run, 'validated', lambda *_: 50.0)
    dataset = TRANSFER_DATASETS['voc2007']
    parts = dataset.parts(voc, seed=0)
    training = Training(steps=1, batch=4, workers=0)
    of = encoder, weights, dataset, parts
    (result,) = finetune_transfer(*of, ([0.1, 0.01], [0.0]), training, tmp_path, 1)
    assert (result.settings['lr'], result.settings['diverged']) == (0.01, 1)
    assert '1 of 2 runs diverged: lr=0.1,decay=0' in capsys.readouterr().out
    with pytest.raises(RunFailed, match='2 of 2 runs failed, .*is not finite'):
        finetune_transfer(*of, ([0.1, 0.2], [0.0]), training, tmp_path / 'all', 1)


def test_logged_metrics_are_those_of_the_datasets():
    used = {name for each in TRANSFER_DATASETS.values() for name in each.metrics}
    assert used == set(LOGGED)
