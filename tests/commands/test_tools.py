"""The command-line tools, run as a user runs them."""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import mmpretrain
import numpy as np
import pytest
import torch
from helpers import CONFIGS, DIGITS, ROOT
from helpers.processes import free_port, launched, start
from helpers.tools import refusal, tool
from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPERS
from mmpretrain import FeatureExtractor

from simclr_mm import get_model, inference_model
from simclr_mm.commands import train
from simclr_mm.errors import UserError
from simclr_mm.evaluation import read_run

RECIPE = CONFIGS / 'simclr_r50_16xb256-coslr-200e_in1k.py'
LINEAR_DIGITS = CONFIGS / 'benchmarks' / 'r18-w16_1xb256-linear-adam-100e_digits.py'
STUDENT = CONFIGS / 'benchmarks' / 'r18-w16_1xb256-distil-coslr-100e_cifar10.py'
FEW_DIGITS = CONFIGS / 'benchmarks' / 'r18-w16_1xb25-finetune-coslr-60e_digits-5perclass.py'
IN1K_128 = CONFIGS / 'simclr_r18_1xb256-adam-100e_in1k-128px.py'
SHORT = ('train_cfg.max_epochs=2', 'param_scheduler.0.end=1', 'param_scheduler.1.begin=1')


def run_script(script, *args):
    """Run one of the shell scripts, which start processes by PyTorch's launcher."""
    done = subprocess.run(
        list(map(str, [ROOT / 'tools' / script, *args])),
        env={**os.environ, 'PORT': str(free_port()), 'PYTHON': sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def losses(work_dir):
    """Logged losses by iteration of the newest run in a folder."""
    newest = max(work_dir.glob('*/vis_data/scalars.json'))
    entries = map(json.loads, newest.read_text().splitlines())
    return {entry['step']: entry['loss'] for entry in entries if 'loss' in entry}


# --- The ImageNet recipe on photographs: processes, killed and resumed ---------------


class Recipe:
    """The 16xb256 recipe on 48 photographs at 64 px and two processes: 3 steps an
    epoch, 2 epochs.

    The encoder is small: its checkpoints, one a step, would take most of the time.
    Processes are forked from one that has imported the package: imports, too.
    """

    def __init__(self, data):
        self.flags = [
            '--no-validate',
            '--cfg-options',
            *SHORT,
            f'train_dataloader.dataset.data_root={data}',
            'train_dataloader.dataset.indices=48',
            'train_dataloader.batch_size=8',
            'train_dataloader.num_workers=1',
            'train_dataloader.dataset.pipeline.1.size=64',
            'randomness.seed=1',
            'model.backbone.depth=18',
            'model.backbone.base_channels=16',
            'model.backbone.stem_channels=16',
            'default_hooks.logger.interval=1',
            'default_hooks.checkpoint.by_epoch=False',
            'default_hooks.checkpoint.interval=1',
            'default_hooks.checkpoint.max_keep_ckpts=-1',
        ]

    def start(self, work_dir, *flags):
        job = dict(world_size=2, port=free_port())
        flags = ['--work-dir', work_dir, *flags, *self.flags, '--launcher', 'pytorch']
        work_dir.mkdir(exist_ok=True)
        return [
            start(train_rank, work_dir / f'rank{rank}.txt', launched(rank, **job), RECIPE, *flags)
            for rank in range(2)
        ]

    def train(self, work_dir, *flags):
        ranks = self.start(work_dir, *flags)
        self.wait(ranks, work_dir, lambda: all(rank.exitcode == 0 for rank in ranks))
        return losses(work_dir)

    def train_by_script(self, work_dir):
        run_script('dist_train.sh', RECIPE, 2, '--work-dir', work_dir, *self.flags)
        return losses(work_dir)

    def train_and_kill(self, work_dir, file):
        ranks = self.start(work_dir)
        self.wait(ranks, work_dir, (work_dir / file).exists)
        kill(ranks)

    def wait(self, ranks, work_dir, done):
        end = time.monotonic() + 400
        while not done():
            if any(rank.exitcode for rank in ranks) or time.monotonic() > end:
                kill(ranks)
                outputs = [path.read_text() for path in work_dir.glob('rank*.txt')]
                pytest.fail('\n'.join(output[-3000:] for output in outputs))
            time.sleep(0.02)


def kill(ranks):
    """Kill processes and their workers."""
    for rank in ranks:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.killpg(rank.pid, signal.SIGKILL)
        rank.kill()  # it may not have come to lead its group yet
        rank.join()


def train_rank(output, environment, *args):
    """Run tools/train.py as one rank in a process of its own."""
    os.setsid()  # lets a kill reach its workers
    with open(output, 'w') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    tool('train.py', *args)


@pytest.mark.slow
def test_recipe_is_killed_and_resumed_as_if_unbroken(imagenet_sample, tmp_path):
    recipe = Recipe(imagenet_sample)
    whole = recipe.train_by_script(tmp_path / 'whole')
    assert sorted(whole) == [1, 2, 3, 4, 5, 6]

    # Killed inside the second epoch, where the last checkpoint is its first step's.
    killed = tmp_path / 'killed'
    recipe.train_and_kill(killed, 'iter_4.pth')
    (killed / 'iter_5.pth').unlink(missing_ok=True)  # the kill came a step later
    (killed / 'last_checkpoint').write_text(str(killed / 'iter_4.pth'))
    rest = recipe.train(killed, '--resume')
    assert rest == {step: whole[step] for step in (5, 6)}


# --- Digits: pretraining, kNN, linear evaluation -------------------------------------


@pytest.fixture(scope='module')
def encoder(tmp_path_factory):
    """A digits checkpoint of two epochs."""
    work_dir = tmp_path_factory.mktemp('digits')
    tool(
        'train.py',
        DIGITS,
        '--work-dir',
        work_dir,
        '--cfg-options',
        *SHORT,
        'randomness.seed=1',
        'train_dataloader.dataset.indices=640',
    )
    return work_dir / 'epoch_2.pth'


def test_tensorboard_and_validation_are_on(encoder):
    assert list(encoder.parent.glob('*/vis_data/events.out.tfevents*'))
    log = next(encoder.parent.glob('*/*.log')).read_text()
    assert 'knn/top1' in log and 'chance: 4.8442' in log  # ln(2 x 64 - 1)


def test_two_checkpoints_to_begin_with_are_refused(tmp_path):
    file = tmp_path / 'a.pth'
    file.write_bytes(b'a')
    said = refusal(
        *('train.py', DIGITS, '--work-dir', tmp_path, '--resume', file),
        *('--cfg-options', 'load_from=b.pth'),
    )
    assert 'a.pth and load_from=b.pth name two checkpoints' in said


def test_test_py_gives_knn(encoder, tmp_path):
    tool(
        'test.py',
        DIGITS,
        encoder,
        '--work-dir',
        tmp_path,
        '--out',
        tmp_path / 'metrics.json',
        '--out-item',
        'metrics',
    )
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert 30 < metrics['knn/top1'] <= 100


def test_metrics_with_several_numbers_are_written(tmp_path):
    config = tmp_path / 'confusion.py'
    config.write_text(
        f'_base_ = {str(LINEAR_DIGITS)!r}\n'
        "test_evaluator = dict(_delete_=True, type='ConfusionMatrix')\n"
    )
    torch.save(get_model(LINEAR_DIGITS).state_dict(), tmp_path / 'random.pth')
    tool(
        *('test.py', config, tmp_path / 'random.pth', '--work-dir', tmp_path),
        *('--out', tmp_path / 'metrics.json', '--out-item', 'metrics'),
    )
    counts = json.loads((tmp_path / 'metrics.json').read_text())['confusion_matrix/result']
    assert np.array(counts).shape == (10, 10) and np.sum(counts) == 500


@pytest.mark.slow
def test_two_processes_give_the_same_knn(encoder, tmp_path, monkeypatch):
    """1797 images: the last batch of the second process is filled up with one."""
    tool('test.py', DIGITS, encoder, '--work-dir', tmp_path / '1')
    monkeypatch.chdir(tmp_path)
    run_script('dist_test.sh', DIGITS, encoder, 2, '--work-dir', tmp_path / '2')
    results = []
    for processes in '12':
        (written,) = (tmp_path / processes / 'evaluation').glob('*.json')
        results.append(read_run(written).results)
    assert results[0] == results[1]
    assert results[0][0].protocol == 'knn'


def test_mmpretrains_own_tool_trains_our_config(tmp_path):
    theirs = Path(mmpretrain.__file__).parent / '.mim' / 'tools' / 'train.py'
    tool(
        theirs,
        DIGITS,
        '--work-dir',
        tmp_path,
        '--auto-scale-lr',
        '--cfg-options',
        'train_cfg.max_epochs=1',
        'param_scheduler=[]',
        'train_dataloader.batch_size=16',
        'train_dataloader.dataset.indices=160',
    )
    assert (tmp_path / 'epoch_1.pth').is_file()
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'Scaling the original LR by 0.25' in log


def test_a_prediction_is_pickled_without_its_batch(encoder, tmp_path):
    tool('test.py', DIGITS, encoder, '--work-dir', tmp_path, '--out', tmp_path / 'p.pkl')
    size = (tmp_path / 'p.pkl').stat().st_size
    assert size < 1797 * 2000  # 128 floats are 512 bytes, a batch of them 256,000


def test_linear_evaluation_from_pretraining_to_top1_and_top5(encoder, tmp_path):
    tool(
        'train.py',
        LINEAR_DIGITS,
        '--pretrained',
        encoder,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        'train_cfg.max_epochs=3',
    )
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'The backbone is the encoder in' in log
    trained = torch.load(tmp_path / 'epoch_3.pth', weights_only=False)['state_dict']
    before = torch.load(encoder, weights_only=False)['state_dict']
    for key, value in trained.items():
        if key.startswith('backbone.'):
            assert torch.equal(value, before[key]), key

    tool(
        'test.py',
        LINEAR_DIGITS,
        tmp_path / 'epoch_3.pth',
        '--work-dir',
        tmp_path,
        '--out',
        tmp_path / 'metrics.json',
        '--out-item',
        'metrics',
    )
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert 20 < metrics['accuracy/top1'] < metrics['accuracy/top5'] <= 100
    (written,) = (tmp_path / 'evaluation').glob('*.json')
    record = read_run(written)
    assert {f'accuracy/{r.metric}': r.value for r in record.results} == metrics
    assert {(r.dataset, r.split, r.protocol) for r in record.results} == {
        ('Digits', 'test', 'linear-published')
    }


def test_fine_tuning_on_five_labels_a_class(encoder, tmp_path):
    tool(
        'train.py',
        FEW_DIGITS,
        '--pretrained',
        encoder,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        'train_cfg.max_epochs=3',
    )
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert '50 of the 1297 images of simclr_mm.Digits have labels: 5 to 5 in' in log
    assert '50 images: 2 steps an epoch of 1 x 25 images, 0 others left out' in log
    assert 'The backbone is the encoder in' in log
    trained = torch.load(tmp_path / 'epoch_3.pth', weights_only=False)['state_dict']
    before = torch.load(encoder, weights_only=False)['state_dict']
    same = [key for key in trained if key in before and torch.equal(trained[key], before[key])]
    assert same == []  # weights and BN statistics alike
    assert trained['head.fc.weight'].any()


def test_evaluate_features_compares_three_encoders(encoder, tmp_path, capsys):
    tool('evaluate_features.py', DIGITS, encoder, '--draws', 2, '--out', tmp_path / 'rows.json')
    record = read_run(tmp_path / 'rows.json')
    values = {(r.features, r.protocol): r.value for r in record.results}
    names = ['pretrained encoder', 'untrained encoder', 'raw pixels']
    protocols = ['knn', 'linear', 'linear-5-labels']
    assert list(values) == [(name, protocol) for name in names for protocol in protocols]
    assert all(10 < value <= 100 for value in values.values())
    assert values['raw pixels', 'linear'] == pytest.approx(97, abs=1)
    assert {r.settings['k'] for r in record.results if r.protocol == 'knn'} == {20}

    printed = capsys.readouterr().out
    assert all(name in printed for name in names)

    tool('report.py', tmp_path)
    table = (tmp_path / 'report.md').read_text()
    assert table.count('\n') == 2 + len(values)
    assert '| raw pixels | linear | top1 |' in table and table in capsys.readouterr().out
    assert (tmp_path / 'report.html').stat().st_size > 1000


def test_evaluate_features_checks_k_before_it_embeds(encoder):
    said = refusal(
        'evaluate_features.py', DIGITS, encoder, '--cfg-options', 'test_evaluator.k=9999'
    )
    assert 'k = 9999' in said and 'set test_evaluator.k' in said


def test_report_without_results(tmp_path):
    with pytest.raises(SystemExit, match='no evaluation below'):
        tool('report.py', tmp_path)


# --- --data ---------------------------------------------------------------------------


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """train/ and val/ with three classes of 8 noisy pictures each."""
    root = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for label, name in enumerate(('ant', 'bee', 'cat')):
            (root / split / name).mkdir(parents=True)
            for i in range(8):
                picture = rng.integers(0, 100, (24, 30, 3), dtype=np.uint8)
                picture[..., label] += 150
                cv2.imwrite(str(root / split / name / f'{i}.png'), picture)
    return root


def test_any_folder_is_pretrained_on(folders, tmp_path):
    tool(
        'train.py',
        DIGITS,
        '--data',
        folders,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *SHORT,
        'train_dataloader.batch_size=16',
    )
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert '48 images: 3 steps an epoch of 1 x 16 images, 0 others left out' in log


def test_labelled_folders_are_evaluated_on(folders, encoder, tmp_path):
    tool(
        'train.py',
        LINEAR_DIGITS,
        '--data',
        folders,
        '--pretrained',
        encoder,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        'train_cfg.max_epochs=1',
        'train_dataloader.batch_size=8',
    )
    checkpoint = tmp_path / 'epoch_1.pth'
    for data in (folders, folders / 'val'):
        tool(
            'test.py',
            LINEAR_DIGITS,
            checkpoint,
            '--data',
            data,
            '--work-dir',
            tmp_path,
            '--out',
            tmp_path / 'metrics.json',
            '--out-item',
            'metrics',
        )
        metrics = json.loads((tmp_path / 'metrics.json').read_text())
        assert list(metrics) == ['accuracy/top1']  # three classes have no top-5
    tool(
        'test.py',
        DIGITS,
        encoder,
        '--data',
        folders,
        '--work-dir',
        tmp_path,
        '--out',
        tmp_path / 'metrics.json',
        '--out-item',
        'metrics',
    )
    knn = json.loads((tmp_path / 'metrics.json').read_text())['knn/top1']
    assert knn > 60  # the classes are three colours; chance is 33


# --- One picture, one feature ---------------------------------------------------------


def test_a_red_picture_has_one_feature_by_every_way_in(tmp_path):
    red = np.zeros((128, 128, 3), np.uint8)
    red[..., 2] = 250  # BGR
    for split in ('train', 'val'):
        (tmp_path / split / 'red').mkdir(parents=True)
        cv2.imwrite(str(tmp_path / split / 'red' / 'red.png'), red)
    path = str(tmp_path / 'val' / 'red' / 'red.png')
    checkpoint = str(tmp_path / 'random.pth')
    torch.manual_seed(0)
    torch.save(dict(state_dict=get_model(str(IN1K_128)).state_dict()), checkpoint)
    model = get_model(str(IN1K_128), pretrained=checkpoint)

    tool(
        'test.py',
        IN1K_128,
        checkpoint,
        '--data',
        tmp_path,
        '--work-dir',
        tmp_path,
        '--out',
        tmp_path / 'pred.pkl',
        '--cfg-options',
        'test_evaluator.k=1',
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
    )
    with open(tmp_path / 'pred.pkl', 'rb') as file:
        by_test = [sample['feature'] for sample in pickle.load(file)]

    cfg = Config.fromfile(IN1K_128)
    mean, std = (torch.tensor(cfg.data_preprocessor[key]) for key in ('mean', 'std'))
    rgb = (torch.tensor([250.0, 0.0, 0.0]) - mean) / std
    with torch.no_grad():
        by_tensor = model.extract_feat(rgb.view(1, 3, 1, 1).expand(1, 3, 128, 128))[0]
    by_extractor = FeatureExtractor(model)(path)[0]
    by_inference = inference_model(model, path)['feature']
    for feature in (*by_test, by_extractor, by_inference):
        np.testing.assert_allclose(feature, by_tensor, rtol=1e-4, atol=1e-5)

    blue = model.extract_feat(rgb.flip(0).view(1, 3, 1, 1).expand(1, 3, 128, 128))[0]
    assert (blue - by_tensor).abs().max() > 0.01


# --- Errors say what to do ------------------------------------------------------------


@pytest.mark.parametrize(
    'args, message',
    [
        ((RECIPE, '--data', 'nowhere'), 'there is no folder .*nowhere'),
        ((RECIPE, '--cfg-options', 'max_epochs=3'), "has no key 'max_epochs'"),
        ((STUDENT, '--pretrained', 'x.pth'), 'trains its encoder from scratch'),
        ((RECIPE, '--no-validate'), 'train_dataloader.dataset.data_root'),
        ((LINEAR_DIGITS,), 'no encoder: pass --pretrained PATH'),
        ((LINEAR_DIGITS, '--pretrained', 'nowhere.pth'), 'nowhere.pth does not exist'),
        (
            (LINEAR_DIGITS, '--data', ROOT / 'docs', '--pretrained', 'x.pth'),
            'there is no folder .*docs/train',
        ),
        (
            (DIGITS, '--cfg-options', 'train_cfg.max_epochs=2'),
            'param_scheduler.0.end = 3 epochs .* train_cfg.max_epochs = 2',
        ),
    ],
)
def test_errors_of_train_py(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        tool('train.py', *args, '--work-dir', tmp_path / 'work')


def test_amp_is_fp16_with_a_scaler_on_gpus_alone(monkeypatch):
    args, cfg = train.parse_args([str(RECIPE), '--amp']), Config.fromfile(RECIPE)
    cfg.optim_wrapper.update(dtype='auto', clip_grad=dict(max_norm=1.0))
    monkeypatch.setattr(train, 'get_device', lambda: 'cpu')
    with pytest.raises(ValueError, match='--amp: fp16 needs a GPU'):
        train.enter_flags(cfg, args)
    monkeypatch.setattr(train, 'get_device', lambda: 'cuda')
    train.enter_flags(cfg, args)
    module = 'mmengine.optim.optimizer.amp_optimizer_wrapper'
    monkeypatch.setattr(f'{module}.is_cuda_available', lambda: True)
    monkeypatch.setattr(f'{module}.GradScaler', lambda: torch.amp.GradScaler('cpu'))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    wrapper = OPTIM_WRAPPERS.build({**cfg.optim_wrapper, 'optimizer': optimizer})
    assert wrapper.cast_dtype == torch.float16 and wrapper.loss_scaler.is_enabled()
    assert wrapper.clip_grad_kwargs == dict(max_norm=1.0)


def test_folders_with_different_classes(folders, encoder, tmp_path):
    (tmp_path / 'train').symlink_to(folders / 'train')
    for name in ('ant', 'bee', 'dog'):
        (tmp_path / 'val' / name).mkdir(parents=True)
    for name, config in (('train.py', LINEAR_DIGITS), ('test.py', DIGITS)):
        extra = [encoder] if name == 'test.py' else ['--pretrained', encoder]
        with pytest.raises(SystemExit, match='different classes: cat, dog'):
            tool(name, config, *extra, '--data', tmp_path, '--work-dir', tmp_path / 'w')
    (tmp_path / 'val').rename(tmp_path / 'other')
    with pytest.raises(SystemExit, match='neither .*/val/<class>/ nor'):
        tool('train.py', LINEAR_DIGITS, '--pretrained', encoder, '--data', tmp_path)


def test_an_empty_folder(tmp_path):
    with pytest.raises(SystemExit, match='holds no image, at any depth'):
        tool('train.py', DIGITS, '--data', tmp_path, '--work-dir', tmp_path / 'work')


def test_scaling_a_rate_without_its_batch_is_refused(tmp_path):
    said = refusal(
        'train.py',
        ROOT / 'configs/simclr_r18-w16_1xb64-coslr-30e_digits.py',
        *('--work-dir', tmp_path, '--auto-scale-lr', '--cfg-options', 'auto_scale_lr=None'),
    )
    assert '--auto-scale-lr: the config has no auto_scale_lr.base_batch_size' in said


def test_an_encoder_is_checked_also_where_the_config_does_not(encoder):
    """The place of the weights may be one of several, and the hook may be missing."""
    cfg = Config.fromfile(LINEAR_DIGITS)
    first = dict(type='Kaiming', layer='Conv2d')
    cfg.custom_hooks = [dict(type='EMAHook')]
    cfg.model.backbone.init_cfg = [first, dict(type='Pretrained', checkpoint='')]
    train.enter_flags(cfg, train.parse_args([str(LINEAR_DIGITS), '--pretrained', str(encoder)]))
    assert cfg.model.backbone.init_cfg[1].checkpoint == str(encoder)
    assert [hook.type for hook in cfg.custom_hooks] == [
        'EMAHook',
        'simclr_mm.PretrainedBackboneHook',
    ]
    cfg.model.backbone.init_cfg = first
    with pytest.raises(UserError, match='has no model.backbone.init_cfg of type Pretrained'):
        train.enter_flags(cfg, train.parse_args([str(LINEAR_DIGITS), '--pretrained', str(encoder)]))


@pytest.mark.parametrize('zero', [True, False])
def test_pretraining_goes_on_from_an_encoder(encoder, tmp_path, zero):
    """Every weight of the backbone is the file's before the first step, or there is none."""
    options = ['--cfg-options', 'train_cfg.max_epochs=1', 'param_scheduler=[]']
    options += ['train_dataloader.dataset.indices=128']
    options += [f'model.backbone.zero_init_residual={zero}']  # True is mmpretrain's default
    work = tmp_path / 'work'
    tool('train.py', DIGITS, '--pretrained', encoder, '--work-dir', work, *options)
    log = next(work.glob('*/*.log')).read_text()
    assert f'The backbone is the encoder in {encoder}, ' in log and ' keys bit by bit.' in log
    other = [*options, 'model.backbone.base_channels=8']
    with pytest.raises(SystemExit, match='the backbone is not the encoder in'):
        tool('train.py', DIGITS, '--pretrained', encoder, '--work-dir', tmp_path / 'b', *other)
