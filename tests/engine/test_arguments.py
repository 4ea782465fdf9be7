"""Arguments of this package's classes, compared with a config before anything is built."""

import math

import pytest
from digits_run import DIGITS
from mmengine.config import Config

from simclr_mm.engine import Runner
from simclr_mm.engine.arguments import check_arguments, check_config
from simclr_mm.errors import UserError
from simclr_mm.transforms import ColorJitter

TRANSFORMS = 'train_dataloader.dataset.pipeline.0.transforms'


def _settings(**options):
    cfg = Config.fromfile(DIGITS)
    cfg.merge_from_dict(options)
    return dict(cfg.items())


@pytest.mark.parametrize(
    'place, value',
    [
        ('model.head.temperature', 'hot'),
        ('model.head.temperature', None),
        ('model.head.temperature', True),
        ('model.head.heat', 1),
        ('model.micro_batch_size', 2.5),
        ('model.compile_backbone', 'max-autotune'),
        ('model.online_probe', 10),
        ('train_dataloader.dataset.pipeline.0.num_views', 2.5),
        ('train_dataloader.dataset.pipeline.0.flip_prob', 'x'),
        (f'{TRANSFORMS}.1.brightness', 'x'),
        (f'{TRANSFORMS}.0.angle', 3),
        ('train_dataloader.dataset.batched', 'yes'),
        ('train_dataloader.sampler.seed', 'x'),
        ('default_hooks.data_wait.limit', 'x'),
        ('default_hooks.non_finite.limit', 1),
        ('val_evaluator.k', 'x'),
    ],
)
def test_an_argument_that_a_class_does_not_take_is_named_by_its_place(place, value):
    with pytest.raises(UserError, match=place.replace('.', r'\.')):
        check_arguments(_settings(**{place: value}))


def test_a_class_as_a_type_and_a_name_with_its_module_are_checked_too():
    for kind in (ColorJitter, 'simclr_mm.transforms.color.ColorJitter', 'simclr_mm.ColorJitter'):
        with pytest.raises(UserError, match=r"^steps\.0\.hue = 'x': ColorJitter takes a number"):
            check_arguments(dict(steps=[dict(type=kind, hue='x')]))


def test_an_argument_without_a_default_is_asked_for():
    head = dict(type='simclr_mm.NTLogisticHead', semi_hard=True)
    with pytest.raises(UserError, match=r'^model\.head\.temperature is missing: NTLogisticHead'):
        check_arguments(dict(model=dict(head=head)))


@pytest.mark.parametrize(
    ('name', 'argument', 'wrong', 'right'),
    [
        ('ViewsPreprocessor', 'mean', (['a', 'b', 'c'], [1, None, 2], [1, math.nan]), [0, 1.5, 2]),
        ('TwoViews', 'scale', ([0.1], [0.1, 'x'], 'ab', 1, [[1, 2], [3, 4]]), [0.1, 1]),
        ('TwoViews', 'transforms', ('x', {}, 1, None), [dict(type='Flip'), []]),
        ('ImageFolder', 'extensions', ('.png', [1]), ['.png']),
        ('ImageFolder', 'pipeline', ([1], ['x'], dict(type='x'), None), [dict(type='x'), print]),
        ('ImageFolder', 'indices', ('x', 1.5, ['x']), [1, 2]),
        ('Digits', 'max_refetch', (None, 'x', math.inf), 3),
        ('Digits', 'metainfo', (3, 'x', []), dict(classes=['a'])),
        ('ImageList', 'places', ('folder', [1], None), ['folder']),
        ('ProbeAccuracy', 'topk', (1, ['a'], [1.5]), (1, 5)),
        ('KNNAccuracy', 'collect_device', ('x', '', None), 'gpu'),
        ('CheckpointHook', 'out_dir', (1, ['x'], True), 'folder'),
        ('CheckpointHook', 'max_keep_ckpts', (math.inf, 0.5, 'x'), 3),
        ('AutocastOptimWrapper', 'accumulative_counts', (None, 'x'), 2),
        ('NTXentHead', 'temperature', (math.nan,), 0.1),
    ],
)
def test_elements_and_arguments_of_base_classes_are_checked(name, argument, wrong, right):
    needed = dict(data_root='x') if name == 'ImageFolder' else {}
    needed |= dict(size=8) if name == 'TwoViews' else {}
    needed |= dict(mean=[1], std=[1]) if name == 'ViewsPreprocessor' else {}
    needed |= dict(places=['x']) if name == 'ImageList' else {}
    part = dict(needed, type=f'simclr_mm.{name}')
    for value in wrong:
        with pytest.raises(UserError, match=f'^part.{argument} = .*: {name} takes '):
            check_arguments(dict(part={**part, argument: value}))
    check_arguments(dict(part={**part, argument: right}))


def test_the_probe_of_simclr_names_no_type():
    model = dict(type='simclr_mm.SimCLR', backbone=dict())
    check_arguments(dict(model={**model, 'online_probe': dict(num_classes=10)}))
    with pytest.raises(UserError, match='^model.online_probe.num_classes is missing: OnlineProbe'):
        check_arguments(dict(model={**model, 'online_probe': {}}))


@pytest.mark.parametrize(
    ('name', 'argument'),
    [
        ('Digits', 'serialize_data'),
        ('InMemoryFolder', 'split'),
        ('ImageFolder', 'ann_file'),
        ('ImageList', 'ann_file'),
        ('TarShards', 'ann_file'),
    ],
)
def test_what_a_dataset_gives_to_its_base_class_is_no_argument(name, argument):
    with pytest.raises(UserError, match=f'^part.{argument}: {name} has no argument'):
        check_arguments(dict(part={'type': f'simclr_mm.{name}', 'data_root': 'x', argument: ''}))


def test_functions_are_checked_as_classes():
    subset = dict(type='simclr_mm.LabelSubset', dataset={}, per_class=5, seed='x')
    with pytest.raises(UserError, match="^data.seed = 'x': LabelSubset takes a whole number here"):
        check_arguments(dict(data=subset))
    check_arguments(dict(data={**subset, 'seed': 3}, collate_fn=dict(type='simclr_mm.collate')))


def test_what_the_classes_take_passes():
    check_arguments(
        dict(
            numbers=dict(type='simclr_mm.NTXentHead', temperature=1),
            nothing=dict(type='simclr_mm.SimCLR', backbone={}, micro_batch_size=None),
            of_mmengine=dict(type='simclr_mm.CheckpointHook', interval=1, save_best='auto'),
            taken_out=dict(type='simclr_mm.DataWaitHook', priority='LOW'),
            handed_up=dict(type='simclr_mm.Digits', split='train', pipeline=[], indices=3),
            wrapper=dict(type='simclr_mm.AutocastOptimWrapper', paramwise_cfg={}, clip_grad=None),
            of_others=dict(type='ResNet', depth='x', foo=1),
        )
    )


@pytest.mark.parametrize(
    'place, value',
    [
        ('randomness.seed', -1),
        ('randomness.seed', 'x'),
        ('train_dataloader.batch_size', 0),
        ('train_dataloader.batch_size', 'x'),
        ('val_dataloader.num_workers', -1),
        ('train_cfg.max_epochs', 0),
        ('train_cfg.max_epochs', 'x'),
        ('train_cfg.max_epochs', 1.5),
        ('train_cfg.max_epochs', float('inf')),
        ('train_cfg.val_interval', 0),
        ('auto_scale_lr.base_batch_size', 0),
    ],
)
def test_a_number_outside_classes_is_named_by_its_place(place, value):
    cfg = Config.fromfile(DIGITS)
    cfg.merge_from_dict({place: value})
    with pytest.raises(UserError, match=f'^{place} = {value!r}: give a whole number from'):
        check_config(cfg)


def test_an_optimizer_is_a_dict():
    for value in (-1, [], True):
        with pytest.raises(UserError, match='^optim_wrapper.optimizer = .*: give a dict'):
            check_config(Config(_settings(**{'optim_wrapper.optimizer': value})))


def test_what_google_resnet_chooses_is_no_argument():
    for name in ('stem_channels', 'base_channels', 'deep_stem'):
        with pytest.raises(UserError, match=f'^part.{name}: GoogleResNet has no argument'):
            check_arguments(dict(part={'type': 'simclr_mm.GoogleResNet', name: 1}))


def test_a_length_may_be_written_as_a_power_of_ten():
    check_config(Config(dict(train_cfg=dict(max_iters=1e5))))


def test_a_runner_from_python_checks_too(tmp_path):
    cfg = Config.fromfile(DIGITS)
    cfg.merge_from_dict({'work_dir': str(tmp_path), 'model.head.temperature': 'hot'})
    with pytest.raises(UserError, match=r"^model\.head\.temperature = 'hot': NTXentHead takes a n"):
        Runner.from_cfg(cfg)
