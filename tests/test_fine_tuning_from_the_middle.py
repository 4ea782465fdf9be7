"""SimCLR v2 from a checkpoint of Google's to a fine-tuned classifier, and its first steps."""

import tarfile

import cv2
import numpy as np
import pytest
import torch
from helpers import CONFIGS, ROOT
from helpers.tools import tool
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import simclr_mm.engine  # noqa: F401  # its optimizer
from simclr_mm.models import SimCLR

ONE_PERCENT = CONFIGS / 'benchmarks' / 'r50_8xb128-finetune-proj1-coslr-60e_in1k-1pct.py'
THIN = dict(width=1 / 32, selective_kernels=True)  # as the fixture is


@pytest.fixture(scope='module')
def google(tmp_path_factory):
    """A checkpoint of TensorFlow 2 with selective kernels and a head of three layers, converted."""
    folder = tmp_path_factory.mktemp('google')
    with tarfile.open(ROOT / 'tests/checkpoints/foreign/google/tensorflow2.tar.xz') as archive:
        archive.extractall(folder, filter='data')
    tool('convert.py', folder / 'variables', folder / 'encoder.pth')
    return folder / 'encoder.pth'


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Eight images of two classes to train on, two to test on."""
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 1)):
        for name in ('one', 'two'):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 256, (70, 70, 3), np.uint8)
                cv2.imwrite(str(root / split / name / f'{i}.jpg'), image)
    return root


def fine_tune(google, folders, work_dir, until):
    subset = 'train_dataloader.dataset'
    options = dict(
        ((f'model.backbone.{key}', value) for key, value in THIN.items()),
        **{
            'model.neck.in_channels': 64,
            'model.neck.until': until,
            'model.head.in_channels': 64,
            f'{subset}.list_file': None,
            f'{subset}.share': 1.0,
            'train_dataloader.batch_size': 4,
            'train_dataloader.num_workers': 0,
            'train_cfg.max_epochs': 1,
            'randomness.seed': 0,
        },
    )
    tool(
        *('train.py', ONE_PERCENT, '--data', folders, '--pretrained', google),
        *('--work-dir', work_dir, '--no-validate'),
        *('--cfg-options', *(f'{key}={value}' for key, value in options.items())),
    )
    log = next(work_dir.glob('*/*.log')).read_text()
    return torch.load(work_dir / 'epoch_1.pth', weights_only=False)['state_dict'], log


@pytest.mark.parametrize('until', [0, 1])
def test_googles_checkpoint_is_fine_tuned(google, folders, tmp_path, until):
    """The kept layer of the head is trained, as in TensorFlow 2 and the paper.

    The code of TensorFlow 1 leaves it as it is.
    """
    before = torch.load(google, weights_only=False)['state_dict']
    after, log = fine_tune(google, folders, tmp_path, until)
    assert f'behind its layer {until}: neck.fc{until}.weight' in log
    # Google's pixels are in [0, 1], the config's are not.
    assert 'trained with data_preprocessor.std=[255.0, 255.0, 255.0], this config has [58.' in log
    kept = {key for key in before if key.startswith(('backbone.', 'neck.fc0', 'neck.bn0'))}
    if until == 0:
        kept = {key for key in kept if key.startswith('backbone.')}
    assert after.keys() == kept | {'head.fc.weight', 'head.fc.bias'}
    same = [key for key in kept if torch.equal(before[key], after[key])]
    assert same == []


def test_a_checkpoint_without_a_head_is_fine_tuned_from_its_features_alone(
    google, folders, tmp_path
):
    checkpoint = torch.load(google, weights_only=False)
    for key in [key for key in checkpoint['state_dict'] if key.startswith('neck.')]:
        del checkpoint['state_dict'][key]
    torch.save(checkpoint, tmp_path / 'v1.pth')
    with pytest.raises(SystemExit, match=r'6 missing: fc0.weight.*model\.neck\.until=0'):
        fine_tune(tmp_path / 'v1.pth', folders, tmp_path / 'a', 1)
    fine_tune(tmp_path / 'v1.pth', folders, tmp_path / 'b', 0)


def classifier():
    """The model and the optimizer of the config, thin."""
    cfg = Config.fromfile(ONE_PERCENT)
    cfg.model.backbone.update(THIN, init_cfg=None)
    cfg.model.neck.in_channels = cfg.model.head.in_channels = 64
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
        model.init_weights()
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    return model, wrapper


def test_the_classifier_starts_at_zero_and_takes_the_plain_step():
    """Adapted, its small weights would hardly move. The other weights are, without decay."""
    model, wrapper = classifier()
    assert not model.head.fc.weight.any() and not model.head.fc.bias.any()
    torch.nn.init.constant_(model.head.fc.weight, 0.01)  # as after a few steps
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    wrapper.step()
    for name, p in model.named_parameters():
        step = before[name] - p.detach()
        rate = 0.16
        if p.ndim > 1 and not name.startswith('head.'):
            # eta |w| / |g|, and |g| is the root of the count of ones
            rate *= 0.001 * before[name].norm() / p.numel() ** 0.5
        torch.testing.assert_close(step, torch.full_like(p, rate), rtol=1e-3, atol=1e-6, msg=name)


def test_the_classifier_is_never_decayed():
    """Out of weight decay, as head_supervised is, whatever the decay of the others."""
    cfg = Config.fromfile(ONE_PERCENT)
    cfg.optim_wrapper.optimizer.weight_decay = 0.1
    model, _ = classifier()
    torch.nn.init.ones_(model.head.fc.weight)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    conv = model.backbone.layer1[0].conv1.weight.detach().clone()
    wrapper.step()
    assert (model.head.fc.weight == 1).all()
    assert not torch.equal(conv, model.backbone.layer1[0].conv1.weight)


def test_pretraining_takes_two_steps():
    """ResNet-50 with selective kernels, at 64 pixels. After two steps every weight has moved.

    In the first one the last norm of a block is 0, and gives the weights before it no gradient.
    """
    cfg = Config.fromfile(CONFIGS / 'simclr-v2_r50-sk_16xb256-coslr-800e_in1k.py')
    torch.manual_seed(0)
    model = SimCLR(**{k: v for k, v in cfg.model.items() if k != 'type'})
    model.init_weights()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch = dict(
        inputs=torch.randint(256, (3, 2, 3, 64, 64), dtype=torch.uint8),
        data_samples=[DataSample() for _ in range(3)],
    )
    for _ in range(2):
        logged = model.train_step(batch, wrapper)
        assert torch.isfinite(logged['loss'])
    still = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert still == ['neck.bn2.bias']  # the last norm of the head has no beta
