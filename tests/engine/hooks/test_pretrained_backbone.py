"""A head is trained on the encoder that was pretrained, or not at all."""

import itertools
import os
import re
from types import SimpleNamespace

import pytest
import torch
from helpers.processes import free_port, launched, run_ranks
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import PretrainedInit, is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from simclr_mm.checkpoints import install_safe_loading
from simclr_mm.engine.hooks.pretrained_backbone import PretrainedBackboneHook, _compare_pixels
from simclr_mm.errors import CheckpointError, UserError
from simclr_mm.models import ProjectionNeck

pytestmark = pytest.mark.portable
_RUNS = itertools.count()


def _backbone(depth: int = 18) -> dict:
    return dict(type='ResNet', depth=depth, base_channels=4, stem_channels=4)


class Pictures(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        image = torch.full((3, 32, 32), index, dtype=torch.uint8)
        return dict(inputs=image, data_samples=DataSample().set_gt_label(index % 2))


def _runner(work_dir, init_cfg, hook, backbone=None, runner=Runner, **kwargs) -> Runner:
    loader = dict(
        dataset=Pictures(),
        batch_size=4,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    config = dict(
        model=dict(
            type='ImageClassifier',
            backbone=dict(backbone or _backbone(), init_cfg=init_cfg),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=2, in_channels=32),
        ),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, weight_decay=0.1)),
        custom_hooks=[hook],
        log_level='ERROR',
        default_scope='mmpretrain',
        experiment_name=f'pretrained_backbone_{next(_RUNS)}',
    )
    return runner(**{**config, **kwargs})


@pytest.fixture(scope='module')
def encoder(tmp_path_factory) -> str:
    """A pretraining checkpoint: a backbone with statistics of its own, and a neck."""
    path = tmp_path_factory.mktemp('encoder') / 'encoder.pth'
    backbone = MMPRETRAIN_MODELS.build(dict(_backbone(), _scope_='mmpretrain'))
    backbone(torch.rand(4, 3, 32, 32))
    state = {f'backbone.{key}': value for key, value in backbone.state_dict().items()}
    torch.save(dict(state_dict={**state, 'neck.fc0.weight': torch.ones(2, 2)}), path)
    return str(path)


def _init_cfg(path, prefix='backbone.') -> dict:
    return dict(type='Pretrained', checkpoint=path, prefix=prefix)


def _equal_keys(model, path) -> set:
    state = torch.load(path)['state_dict']
    return {
        key
        for key, value in model.backbone.state_dict().items()
        if torch.equal(value, state[f'backbone.{key}'])
    }


def test_a_linear_evaluation_leaves_the_encoder_alone(tmp_path, encoder):
    runner = _runner(tmp_path, _init_cfg(encoder), PretrainedBackboneHook())
    head = runner.model.head.fc.weight.detach().clone()
    runner.train()
    model = runner.model
    assert _equal_keys(model, encoder) == set(model.backbone.state_dict())
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert not any(m.training for m in model.backbone.modules()) and model.training
    assert not torch.equal(model.head.fc.weight, head)


@pytest.mark.parametrize('named', [PretrainedInit, 'mmengine.model.weight_init.PretrainedInit'])
def test_the_initialiser_as_a_class(tmp_path, encoder, named):
    init_cfg = dict(_init_cfg(encoder), type=named)
    with pytest.raises(CheckpointError, match='8 with other values: .*bn2.weight.*zero'):
        _runner(tmp_path, init_cfg, PretrainedBackboneHook()).train()
    backbone = dict(_backbone(), zero_init_residual=False)
    runner = _runner(tmp_path, init_cfg, PretrainedBackboneHook(), backbone)
    runner.train()
    model = runner.model
    assert _equal_keys(model, encoder) == set(model.backbone.state_dict())


def test_fine_tuning_starts_from_the_encoder_and_moves_on(tmp_path, encoder):
    hook = PretrainedBackboneHook(frozen=False)
    runner = _runner(tmp_path, _init_cfg(encoder), hook)
    runner.train()
    assert 'conv1.weight' not in _equal_keys(runner.model, encoder)
    install_safe_loading()
    runner = _runner(
        tmp_path, _init_cfg(encoder), hook, resume=True, train_cfg=dict(by_epoch=True, max_epochs=3)
    )
    runner.train()
    assert runner.iter == 6


def test_a_resumed_linear_evaluation(tmp_path, encoder):
    _runner(tmp_path, _init_cfg(encoder), PretrainedBackboneHook()).train()
    more = dict(resume=True, train_cfg=dict(by_epoch=True, max_epochs=3))
    runner = _runner(tmp_path, _init_cfg(encoder), PretrainedBackboneHook(), **more)
    runner.train()
    assert runner.iter == 6
    state = torch.load(encoder)
    state['state_dict']['backbone.conv1.weight'] += 1
    torch.save(state, tmp_path / 'another.pth')
    init_cfg = _init_cfg(str(tmp_path / 'another.pth'))
    with pytest.raises(RuntimeError, match='1 with other values: conv1.weight'):
        _runner(tmp_path, init_cfg, PretrainedBackboneHook(), **more).train()


@pytest.mark.parametrize('frozen', [True, False])
@pytest.mark.parametrize(
    'init_cfg', [None, _init_cfg(None), _init_cfg(''), [dict(type='Kaiming', layer='Conv2d')]]
)
def test_without_an_encoder_it_does_not_start(tmp_path, frozen, init_cfg):
    hook = PretrainedBackboneHook(frozen)
    with pytest.raises(ValueError, match='no encoder: pass --pretrained PATH'):
        _runner(tmp_path, init_cfg, hook).train()


def test_a_test_needs_no_encoder(tmp_path):
    runner = _runner(
        tmp_path,
        _init_cfg(None),
        PretrainedBackboneHook(),
        train_dataloader=None,
        train_cfg=None,
        optim_wrapper=None,
        test_dataloader=dict(
            dataset=Pictures(),
            batch_size=4,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        test_cfg=dict(),
        test_evaluator=dict(type='Accuracy'),
    )
    assert 'accuracy/top1' in runner.test()


def test_a_forgotten_prefix(tmp_path, encoder):
    # MMEngine logs a warning and would train on a random backbone.
    runner = _runner(tmp_path, _init_cfg(encoder, None), PretrainedBackboneHook())
    with pytest.raises(RuntimeError, match='120 missing: .*121 unexpected: backbone.*prefix'):
        runner.train()


def test_another_architecture(tmp_path, encoder):
    wider = dict(_backbone(), base_channels=8)
    runner = _runner(
        tmp_path, _init_cfg(encoder), PretrainedBackboneHook(), backbone=dict(_backbone(), depth=34)
    )
    with pytest.raises(RuntimeError, match='missing: layer1.2.conv1.weight'):
        runner.train()
    runner = _runner(tmp_path, _init_cfg(encoder), PretrainedBackboneHook(), backbone=wider)
    with pytest.raises(RuntimeError, match='of another shape: layer1'):
        runner.train()


class Overwrite(Hook):
    """Writes a weight at a point of training."""

    priority = 'HIGHEST'

    def __init__(self, point: str) -> None:
        setattr(self, point, self.write)

    def write(self, runner, *args, **kwargs) -> None:
        runner.model.backbone.bn1.running_mean += 1


@pytest.mark.parametrize(
    'point, message',
    [
        ('before_train', 'is not the encoder .* 1 with other values: bn1.running_mean'),
        ('after_train_iter', 'changed during training: 1 with other values: bn1.running_mean'),
    ],
)
def test_a_hook_that_writes_weights_is_found(tmp_path, encoder, point, message):
    runner = _runner(tmp_path, _init_cfg(encoder), PretrainedBackboneHook())
    runner.register_hook(Overwrite(point))
    with pytest.raises(RuntimeError, match=message):
        runner.train()


def test_an_encoder_that_diverged_is_refused(tmp_path, encoder):
    state = torch.load(encoder)
    state['state_dict']['backbone.conv1.weight'][0, 0, 0, 0] = torch.nan
    torch.save(state, tmp_path / 'nan.pth')
    hook = PretrainedBackboneHook()
    runner = _runner(tmp_path, _init_cfg(str(tmp_path / 'nan.pth')), hook)
    with pytest.raises(CheckpointError, match='NaN .*: backbone.conv1.weight;'):
        runner.train()


@pytest.fixture(scope='module')
def with_head(encoder, tmp_path_factory) -> str:
    """A pretraining checkpoint with a projection head of three layers."""
    torch.manual_seed(0)
    neck = ProjectionNeck(32, out_channels=8, num_layers=3)
    neck(torch.rand(8, 32))
    state = {k: v for k, v in torch.load(encoder)['state_dict'].items() if 'neck' not in k}
    state.update({f'neck.{key}': value for key, value in neck.state_dict().items()})
    path = tmp_path_factory.mktemp('head') / 'head.pth'
    torch.save(dict(state_dict=state), path)
    return str(path)


def _middle(tmp_path, path, until, frozen=False, **kwargs) -> Runner:
    model = dict(
        type='ImageClassifier',
        backbone=dict(_backbone(), init_cfg=_init_cfg(path)),
        neck=dict(type='simclr_mm.ProjectionNeck', in_channels=32, out_channels=8, until=until),
        head=dict(type='LinearClsHead', num_classes=2, in_channels=32),
    )
    model['neck'].update(kwargs.pop('neck', {}))
    if until == -1:
        model['head']['in_channels'] = 8
    hook = PretrainedBackboneHook(frozen)
    return _runner(tmp_path, None, hook, model=model, log_level='INFO', **kwargs)


class Keep(Hook):
    """The neck's weights before and after training."""

    priority = 'VERY_LOW'

    def before_train(self, runner) -> None:
        self.before = _copy(runner.model.neck)

    def after_train(self, runner) -> None:
        self.after = _copy(runner.model.neck)


def _copy(module) -> dict:
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.mark.parametrize(
    'until, left', [(0, r'18 keys .* behind its layer 0: neck\.fc0\.weight, neck\.bn0\.weight'),
                    (1, r'12 keys .* behind its layer 1: neck\.fc1\.weight, neck\.bn1\.weight'),
                    (-1, '')]
)  # fmt: skip
@pytest.mark.parametrize('frozen', [True, False])
def test_a_part_of_the_head(tmp_path, with_head, caplog, until, left, frozen):
    runner = _middle(tmp_path, with_head, until, frozen, neck=dict(num_layers=3))
    keep = Keep()
    runner.register_hook(keep)
    runner.train()
    state = torch.load(with_head)['state_dict']
    layers = 3 if until == -1 else until
    assert len(keep.before) == 6 * layers
    for key, value in keep.before.items():  # statistics and counters too
        assert torch.equal(value, state[f'neck.{key}']), key
        assert frozen == torch.equal(value, keep.after[key]), key
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert f'{120 + 6 * layers} of {120 + 6 * layers} keys bit by bit' in log
    assert (re.search(f'Left out {left}', log) is not None) == bool(left)


@pytest.mark.parametrize(
    'change, neck, problem',
    [
        (['bn0.running_var'], {}, '1 missing: bn0.running_var;'),
        (['fc0.weight', 'bn0.bias'], {}, '2 missing: fc0.weight, bn0.bias;'),
        ([], dict(hid_channels=16), r'of another shape: fc0.weight \(32, 32\) for \(16, 32\)'),
        ([], dict(norm_cfg=None), '1 missing: fc0.bias; 5 unexpected: bn0.weight'),
    ],
)
def test_a_head_that_does_not_fit(tmp_path, with_head, change, neck, problem):
    checkpoint = torch.load(with_head)
    for key in change:
        del checkpoint['state_dict'][f'neck.{key}']
    torch.save(checkpoint, tmp_path / 'a.pth')
    runner = _middle(tmp_path, str(tmp_path / 'a.pth'), 1, neck=neck)
    with pytest.raises(CheckpointError, match=rf'a\.pth does not hold .*{problem}.*until=0'):
        runner.train()


def test_a_whole_head_of_more_layers_is_refused(tmp_path, with_head):
    runner = _middle(tmp_path, with_head, -1, neck=dict(out_channels=32))
    with pytest.raises(CheckpointError, match='6 unexpected: fc2.weight'):
        runner.train()


def test_a_resumed_fine_tuning_keeps_its_own_head(tmp_path, with_head):
    _middle(tmp_path, with_head, 1).train()
    runner = _middle(
        tmp_path, with_head, 1, resume=True, train_cfg=dict(by_epoch=True, max_epochs=3)
    )
    keep = Keep()
    runner.register_hook(keep)
    runner.train()
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['state_dict']
    assert all(torch.equal(saved[f'neck.{key}'], value) for key, value in keep.before.items())


def _train_rank(rank: int, port: int, work_dir, encoder: str) -> None:
    from simclr_mm.engine.runner import Runner

    os.environ.update(launched(rank, 2, port))
    torch.set_num_threads(1)
    runner = _runner(
        work_dir, _init_cfg(encoder), PretrainedBackboneHook(), runner=Runner, launcher='pytorch'
    )
    runner.train()
    model = runner.model.module
    assert is_model_wrapper(runner.model) and runner.iter == 2
    assert _equal_keys(model, encoder) == set(model.backbone.state_dict())


def test_two_processes(tmp_path, encoder):
    run_ranks(_train_rank, 2, free_port(), tmp_path, encoder)


@pytest.mark.parametrize('content', [{}, {'state_dict': []}, [1], {'state_dict': {1: 2}}])
def test_a_file_without_weights(tmp_path, content):
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='a.pth holds no weights'):
        _runner(tmp_path, _init_cfg(str(tmp_path / 'a.pth')), PretrainedBackboneHook()).train()


def test_other_pixels_than_the_encoder_knows_are_said(tmp_path, encoder):
    unit = dict(mean=[0.0] * 3, std=[255.0] * 3, to_rgb=True)
    state = torch.load(encoder)
    for place in ('data_preprocessor', 'model'):
        settings = unit if place == 'data_preprocessor' else dict(data_preprocessor=unit)
        text = Config({place: settings}).pretty_text
        torch.save(dict(state, meta=dict(cfg=text)), tmp_path / 'known.pth')
        warned = []
        for pixels in (dict(mean=[123.675] * 3, std=[58.395] * 3, to_rgb=True), unit):
            cfg = Config(dict(data_preprocessor=pixels))
            logger = SimpleNamespace(warning=warned.append)
            _compare_pixels(
                SimpleNamespace(cfg=cfg, logger=logger), torch.load(tmp_path / 'known.pth'), 'a.pth'
            )
        assert len(warned) == 2  # mean and std, and nothing of the same pixels
        assert '--cfg-options "data_preprocessor.mean=[0.0,0.0,0.0]"' in warned[0]


def test_keys_that_do_not_fit_are_named_where_they_may(tmp_path, encoder, caplog):
    state = torch.load(encoder)
    state['state_dict'].pop('backbone.layer4.1.conv2.weight')
    torch.save(state, tmp_path / 'partial.pth')
    init_cfg = _init_cfg(str(tmp_path / 'partial.pth'))
    with pytest.raises(CheckpointError, match='1 missing'):
        _runner(tmp_path, init_cfg, PretrainedBackboneHook(frozen=False)).train()
    lenient = PretrainedBackboneHook(frozen=False, strict=False)
    runner = _runner(tmp_path, dict(init_cfg, prefix='backbone'), lenient)
    warned = []
    runner.logger.warning = warned.append
    runner.train()
    assert any(
        '1 keys are in the backbone or in' in text and 'layer4.1.conv2.weight' in text
        for text in warned
    )
    wider = dict(_backbone(), base_channels=8, stem_channels=8)
    for backbone in (wider, dict(type='MobileNetV2')):
        with pytest.raises(CheckpointError, match='the backbone is not the encoder'):
            _runner(tmp_path, init_cfg, lenient, backbone).train()
    with pytest.raises(UserError, match='strict=False is for frozen=False'):
        PretrainedBackboneHook(strict=False)
