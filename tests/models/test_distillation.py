"""A student and its frozen teacher, step by step and in runs."""

import copy
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from digits_run import CONFIGS
from helpers.models import shaken
from helpers.processes import free_port, launched, run_ranks
from mmengine.config import Config
from mmengine.registry import RUNNERS, DefaultScope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import simclr_mm
from simclr_mm.apis import load_encoder
from simclr_mm.errors import CheckpointError, UserError

FINETUNE = CONFIGS / 'benchmarks/r18-w16_1xb25-finetune-coslr-60e_digits-5perclass.py'
PIXELS = dict(num_classes=3, mean=[0.0] * 3, std=[255.0] * 3, to_rgb=True)


def classifier(base=8, classes=3, **kwargs):
    return dict(
        dict(type='ImageClassifier', data_preprocessor=PIXELS),
        backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=base, stem_channels=base),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=classes, in_channels=8 * base),
        **kwargs,
    )


def build(model):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(copy.deepcopy(model))


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """The file of a classifier with its config."""
    model = shaken(build(classifier(4)))
    torch.nn.init.normal_(model.head.fc.weight, std=3)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    meta = dict(cfg=Config(dict(model=classifier(4))).pretty_text)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


def student(teacher, read=True, **kwargs):
    settings = classifier() | dict(type='simclr_mm.Distillation', teacher=teacher and str(teacher))
    model = build(settings | kwargs)
    if read:
        model.init_weights()
    return model


def images(n=6):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def labelled(labels):
    return [DataSample().set_gt_label(label) for label in labels]


def softmax(rows):
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize('alpha', [1.0, 0.3])
def test_loss_by_the_formula(teacher, alpha):
    model = student(teacher, temperature=2.0, alpha=alpha)
    labels = [0, 1, 2, 2, 1, 0]
    losses = model(images(), labelled(labels), mode='loss')
    original = build(classifier(4)).eval()
    original.load_state_dict(torch.load(teacher)['state_dict'])
    with torch.no_grad():
        t = original(images(), mode='tensor').double().numpy()
        s = model(images(), mode='tensor').double().numpy()  # in train mode, as in the loss
    kd = -4 * (softmax(t / 2) * np.log(softmax(s / 2))).sum(axis=1).mean()
    ce = -np.log(softmax(s))[np.arange(6), labels].mean()
    assert losses['loss'].item() == pytest.approx(alpha * kd + (1 - alpha) * ce, rel=1e-5)
    agreement = (s.argmax(1) == t.argmax(1)).mean()
    assert 0 < agreement < 1
    assert losses['agreement'].item() == pytest.approx(agreement)
    assert set(losses) == {'loss', 'agreement'} | ({'kd', 'ce'} if alpha < 1 else set())


def test_mixed_images_have_mixed_labels(teacher):
    """As Mixup and CutMix of mmpretrain's preprocessor leave them."""
    model = student(teacher, alpha=0.3)
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], size=6)
    samples = labelled([0] * 6)
    for sample, share in zip(samples, shares):
        sample.set_gt_score(torch.tensor(share, dtype=torch.float32))
    hot = labelled([0] * 6)
    for sample in hot:
        sample.set_gt_score(torch.tensor([0, 1, 0]))  # whole numbers, of to_onehot=True
    same = [model(images(), each, mode='loss')['ce'] for each in (hot, labelled([1] * 6))]
    assert same[0].item() == pytest.approx(same[1].item())
    ce = model(images(), samples, mode='loss')['ce'].item()
    with torch.no_grad():
        s = model(images(), mode='tensor').double().numpy()
    assert ce == pytest.approx(-(shares * np.log(softmax(s))).sum(axis=1).mean(), rel=1e-5)


def test_the_teacher_is_frozen_and_in_no_checkpoint(teacher):
    model = student(teacher)
    (frozen,) = model._teacher
    before = copy.deepcopy(frozen.state_dict())
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(images(), mode='loss')['loss'].backward()
        optimizer.step()
    assert not any(module.training for module in frozen.modules())
    assert all(p.grad is None and not p.requires_grad for p in frozen.parameters())
    for key, value in frozen.state_dict().items():
        assert value.equal(before[key]), key
    assert model.state_dict().keys() == build(classifier()).state_dict().keys()
    assert all(p.grad is not None for p in model.parameters())


def test_backbones_compute_in_the_precision_of_the_step_and_logits_in_float32(teacher):
    model = student(teacher)
    seen = []

    def note(module, arguments, out):
        seen.append(out.dtype if torch.is_tensor(out) else out[-1].dtype)

    for each in (model, model._teacher[0]):
        each.backbone.register_forward_hook(note)
        each.head.register_forward_hook(note)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = model(images(), mode='loss')['loss']
    assert seen == [torch.bfloat16, torch.float32] * 2 and loss.dtype == torch.float32


def test_logits_of_fixed_views_are_kept(teacher):
    plain, model = student(teacher), student(teacher, cache_logits=True)
    first = model(images(), mode='loss')
    assert first['cached'] == 0
    torch.testing.assert_close(first['loss'], plain(images(), mode='loss')['loss'])
    model._teacher[0].head.fc.weight.zero_()  # another teacher would be seen
    again = model(images()[[3, 0, 5]], mode='loss')
    assert again['cached'] == 1
    torch.testing.assert_close(again['loss'], plain(images()[[3, 0, 5]], mode='loss')['loss'])
    assert model(torch.flip(images(), [0, 3]), mode='loss')['cached'] == 0  # other views
    some = model(torch.cat([images()[:2], images() * 0.5]), mode='loss')
    assert some['cached'] == pytest.approx(2 / 8)


def test_a_student_is_built_and_predicts_without_its_teacher(tmp_path):
    model = student(tmp_path / 'lost.pth', read=False).eval()
    assert len(model(images(), mode='predict')) == 6
    with pytest.raises(UserError, match='the teacher is not read'):
        model(images(), mode='loss')
    with pytest.raises(CheckpointError, match='lost.pth does not exist'):
        model.init_weights()


def test_a_student_can_teach(teacher, tmp_path):
    model = student(teacher)
    settings = classifier() | dict(type='simclr_mm.Distillation', teacher='not/here.pth')
    meta = dict(cfg=Config(dict(model=settings)).pretty_text)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'first.pth')
    second = student(tmp_path / 'first.pth')
    assert second(images(), mode='loss')['loss'].isfinite()


def test_a_teacher_without_a_config(teacher, tmp_path):
    weights = torch.load(teacher)['state_dict']
    torch.save(weights, tmp_path / 'plain.pth')
    with pytest.raises(CheckpointError, match='does not hold its config'):
        student(tmp_path / 'plain.pth')
    given = student(tmp_path / 'plain.pth', teacher_model=classifier(4))
    assert given._teacher[0].state_dict()['head.fc.weight'].equal(weights['head.fc.weight'])


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(alpha=0), 'model.alpha = 0: give a share'),
        (dict(teacher=None), 'no teacher: name .* model.teacher=PATH'),
        (
            dict(data_preprocessor=dict(PIXELS, mean=[1.0] * 3)),
            r'data_preprocessor.mean = \[1.0, 1.0, 1.0\], but the teacher',
        ),
        (dict(teacher_model=dict(classifier(4), head=None)), 'without classes: name'),
        (dict(teacher_model=classifier(8)), 'of another shape'),
    ],
)
def test_a_mistake_is_named(teacher, change, message):
    with pytest.raises(UserError, match=message):
        student(**{'teacher': teacher, **change})


def test_mistakes_in_a_batch(teacher):
    with pytest.raises(UserError, match='an image has no label: set .*with_label=True'):
        student(teacher, alpha=0.5)(images(), [DataSample() for _ in range(6)], mode='loss')
    other = dict(head=dict(type='LinearClsHead', num_classes=4, in_channels=64))
    with pytest.raises(UserError, match=r'\(6, 4\) and \(6, 3\): set model.head.num_classes'):
        student(teacher, **other)(images(), mode='loss')


# --- Runs -----------------------------------------------------------------------------


def runner(work_dir, teacher, **options):
    """A run of 3 epochs with 3 steps on unlabelled digits."""
    cfg = Config.fromfile(FINETUNE)
    cfg.merge_from_dict(
        {
            'model.type': 'simclr_mm.Distillation',
            'model.teacher': teacher and str(teacher),
            'model.backbone': dict(init_cfg=None, base_channels=8, stem_channels=8),
            'model.head.in_channels': 64,
            'custom_hooks': [],
            'work_dir': str(work_dir),
            'experiment_name': '-'.join(Path(work_dir).parts[-2:]),
            'train_dataloader': dict(batch_size=16, dataset=dict(dataset=dict(with_label=False))),
            'train_cfg.max_epochs': 3,
            'default_hooks.checkpoint.max_keep_ckpts': -1,
            'default_hooks.logger.interval': 1,
            'randomness.seed': 3,
            'auto_scale_lr': None,
            'log_level': 'WARNING',
            **options,
        }
    )
    cfg.train_dataloader.dataset = dict(cfg.train_dataloader.dataset.dataset, indices=50)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return RUNNERS.build(cfg)


@pytest.fixture(scope='module')
def digits_teacher(tmp_path_factory):
    cfg = Config.fromfile(FINETUNE)
    cfg.model.backbone.update(init_cfg=None)
    model = build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    torch.nn.init.normal_(model.head.fc.weight, std=1)
    path = tmp_path_factory.mktemp('digits_teacher') / 'teacher.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=cfg.pretty_text)), path)
    return path


@pytest.fixture(scope='module')
def whole(tmp_path_factory, digits_teacher):
    """The folder of a run of three epochs, one checkpoint each."""
    folder = tmp_path_factory.mktemp('distilled') / 'whole'
    runner(folder, digits_teacher).train()
    return folder


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def test_a_resumed_run_is_the_unbroken_one(whole, tmp_path, digits_teacher):
    first = whole / 'epoch_1.pth'
    meta = torch.load(first, weights_only=False)['meta']
    assert meta['teacher_sha256'] == hashlib.sha256(digits_teacher.read_bytes()).hexdigest()
    moved = tmp_path / 'moved.pth'
    moved.write_bytes(digits_teacher.read_bytes())
    runner(tmp_path / 'again', moved, load_from=str(first), resume=True).train()
    one, two = (weights(folder / 'epoch_3.pth') for folder in (whole, tmp_path / 'again'))
    assert all(value.equal(two[key]) for key, value in one.items())
    assert not one['head.fc.weight'].equal(weights(first)['head.fc.weight'])

    other = torch.load(digits_teacher, weights_only=False)
    other['state_dict']['head.fc.bias'] += 1
    torch.save(other, moved)
    with pytest.raises(UserError, match='--resume: the teacher of .* has the SHA-256'):
        runner(tmp_path / 'third', moved, load_from=str(first), resume=True).train()


def test_the_student_is_an_ordinary_classifier(whole):
    """Its checkpoint loads with a classifier's config, and by itself without the teacher."""
    file = whole / 'epoch_3.pth'
    cfg = Config.fromfile(FINETUNE)
    cfg.model.backbone.update(init_cfg=None, base_channels=8, stem_channels=8)
    cfg.model.head.in_channels = 64
    plain = simclr_mm.get_model(cfg, pretrained=str(file))
    images = torch.rand(2, 3, 16, 16)
    own = load_encoder(str(file)).model
    assert type(own).__name__ == 'Distillation'
    with torch.no_grad():
        torch.testing.assert_close(plain(images, mode='tensor'), own(images, mode='tensor'))


def _train_rank(rank, port, work_dir, teacher, other):
    os.environ.update(launched(rank, 2, port))
    torch.set_num_threads(1)
    mixed = runner(work_dir / 'mixed', teacher if rank == 0 else other, launcher='pytorch')
    with pytest.raises(UserError, match='rank 1 has SHA-256 of model.teacher'):
        mixed.train()
    run = runner(work_dir / 'run', teacher, launcher='pytorch')
    run.train()
    torch.save(run.model.module.state_dict(), f'{work_dir}/rank{rank}.pth')


@pytest.mark.slow
def test_two_ranks(tmp_path, digits_teacher):
    """They refuse two teachers, and end with the same weights of the student alone."""
    content = torch.load(digits_teacher, weights_only=False)
    content['state_dict']['head.fc.bias'] += 1
    torch.save(content, tmp_path / 'other.pth')
    run_ranks(_train_rank, 2, free_port(), tmp_path, digits_teacher, tmp_path / 'other.pth')
    one, two = (torch.load(tmp_path / f'rank{rank}.pth') for rank in (0, 1))
    assert {key.split('.')[0] for key in one} == {'backbone', 'head'}
    trained = [key for key in one if 'running' not in key]  # BN is local on CPUs
    assert all(one[key].equal(two[key]) for key in trained)
