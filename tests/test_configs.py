"""Every config is built, and its name and its metafile entry are held against it."""

import ast
import functools
import math
import re
from pathlib import Path

import modelindex
import pytest
import yaml
from helpers.models import multiply_adds, on_meta
from mmengine.config import Config
from mmengine.registry import HOOKS, METRICS, PARAM_SCHEDULERS, DefaultScope
from mmpretrain.registry import MODELS, TRANSFORMS

import simclr_mm
import simclr_mm.engine
from simclr_mm.engine.arguments import check_config
from simclr_mm.registry import OPTIM_WRAPPERS, OPTIMIZERS, type_name

ROOT = Path(__file__).parents[1] / 'configs'
PRETRAINING = sorted(ROOT.glob('*.py'))
BENCHMARKS = sorted((ROOT / 'benchmarks').glob('*.py'))
CONFIGS = PRETRAINING + BENCHMARKS
METAFILE = yaml.safe_load((ROOT / 'metafile.yml').read_text())
ENTRIES = METAFILE['Models']
NAME = re.compile(
    r'(?:(?P<algorithm>simclr|simclr-v0|simclr-v2|avgsimclr)_)?'
    r'r(?P<depth>\d+)(?:w(?P<times>\d+))?(?P<selective>-sk)?(?:-w(?P<width>\d+))?_'
    r'(?P<gpus>\d+)xb(?P<batch>\d+)-(?:(?P<task>linear|finetune|(?:self)?distil)-)?'
    r'(?:proj(?P<selector>\d+)-)?'
    r'(?P<schedule>coslr|adam)-(?P<length>\d+)(?P<unit>e|k)_'
    r'(?P<data>in1k|cifar100|cifar10|stl10|tiny-imagenet|digits|bands)'
    r'(?:-(?P<size>\d+)px)?'
    r'(?:-(?P<labels>\d+(?:pct|perclass)))?'
)
SIZES = dict(in1k=224, cifar10=32, cifar100=32, stl10=96, digits=16)
SIZES['tiny-imagenet'] = 64
DATASETS = dict(
    in1k='ImageNet',
    cifar10='simclr_mm.CIFAR10',
    cifar100='simclr_mm.CIFAR100',
    stl10='simclr_mm.STL10',
    digits='simclr_mm.Digits',
    bands='simclr_mm.ImageFolder',
)
DATASETS['tiny-imagenet'] = 'simclr_mm.TinyImageNet'
TRAINING_DATA = dict(
    in1k='ImageNet-1k',
    cifar10='CIFAR-10',
    cifar100='CIFAR-100',
    stl10='STL-10',
    digits='scikit-learn digits',
    bands='a folder of images',
)
TRAINING_DATA['tiny-imagenet'] = 'Tiny-ImageNet'
CROP_AND_FLIP = {'simclr_mm.LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip', 'PackInputs'}

each_config = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)


@functools.cache
def read(path):
    """The config, which no test changes."""
    return Config.fromfile(path)


def build(section, registry, **extra):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return registry.build({**section, **extra})


@pytest.fixture(scope='module')
def parameters():
    """Parameter counts by what determines them, each model built once."""
    return {}


def build_on_meta(cfg):
    with on_meta():
        return build(cfg.model, MODELS, data_preprocessor=cfg.data_preprocessor)


def count(cfg, parameters):
    key = str(cfg.model)
    if key not in parameters:
        model = build_on_meta(cfg)
        parameters[key] = sum(
            p.numel() for name, p in model.named_parameters() if not name.startswith('probe.')
        )  # not of the encoder
        optimizer = build(cfg.optim_wrapper.optimizer, OPTIMIZERS, params=model.parameters())
        wrapper = {k: v for k, v in cfg.optim_wrapper.items() if k != 'paramwise_cfg'}
        build(wrapper, OPTIM_WRAPPERS, optimizer=optimizer)  # where there is no GPU too
        for scheduler in cfg.param_scheduler:
            settings = {k: v for k, v in scheduler.items() if k != 'convert_to_iter_based'}
            build({'end': 10**6, **settings}, PARAM_SCHEDULERS, optimizer=optimizer)
    return parameters[key]


@pytest.mark.portable
@each_config
def test_config_is_built_and_metafile_is_true(path, parameters):
    cfg = read(path)
    check_config(cfg)
    count_ = count(cfg, parameters)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        for transform in labelled_by(loader.dataset).pipeline:
            build(transform, TRANSFORMS)
    for hook in (*cfg.default_hooks.values(), *cfg.get('custom_hooks', [])):
        build(hook, HOOKS)
    for evaluator in (*evaluators(cfg, 'val'), *evaluators(cfg, 'test')):
        build(evaluator, METRICS)
    for loop in (cfg.train_cfg.type, cfg.runner_type):
        assert loop.split('.')[-1] in dir(simclr_mm.engine)
    entries = [e for e in ENTRIES if e['Config'] == str(path.relative_to(ROOT.parent))]
    assert path.stem in [entry['Name'] for entry in entries]
    for entry in entries:
        metadata = entry['Metadata']
        assert metadata['Parameters'] == count_
        assert metadata['FLOPs'] == flops(cfg, path, parameters)
        # mim search finds models by it.
        assert metadata['Training Techniques'] == type_name(cfg.optim_wrapper.optimizer)
        assert metadata['Training Data'] == TRAINING_DATA[NAME.fullmatch(path.stem)['data']]
        length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
        assert metadata.get('Epochs', metadata.get('Iterations')) == length
        assert ('Epochs' in metadata) == ('max_epochs' in cfg.train_cfg)
        assert metadata['Batch Size'] == global_batch(path)
        second = re.search('simclr-v2|-proj|distil', path.stem)
        assert entry['In Collection'] == ('SimCLRv2' if second else 'SimCLR')


def flops(cfg, path, known):
    """Multiply-adds of mode 'tensor' for one image of the test size."""
    name = NAME.fullmatch(path.stem)
    size = int(name['size'] or SIZES[name['data']])
    head = cfg.model.head.get('num_classes')
    neck = cfg.model.neck.get('until')
    key = str(cfg.model.backbone), str(cfg.model.get('neck')), size, head, neck
    if key not in known:
        known[key] = multiply_adds(build_on_meta(cfg), size)
    return known[key]


def evaluators(cfg, phase):
    found = cfg[f'{phase}_evaluator']
    return found if isinstance(found, list) else [found]


def global_batch(path):
    name = NAME.fullmatch(path.stem)
    return int(name['gpus']) * int(name['batch'])


@each_config
def test_name_says_what_the_config_does(path):
    name, cfg = NAME.fullmatch(path.stem), read(path)
    assert name, f'{path.stem} is no config name'
    backbone, train, optimizer = (
        cfg.model.backbone,
        cfg.train_dataloader,
        cfg.optim_wrapper.optimizer,
    )
    assert backbone.depth == int(name['depth'])
    assert backbone.get('base_channels', 64) == int(name['width'] or 64)
    assert backbone.get('width', 1) == int(name['times'] or 1)
    assert backbone.get('selective_kernels', False) == bool(name['selective'])
    assert train.batch_size == int(name['batch'])
    assert cfg.auto_scale_lr.base_batch_size == global_batch(path)

    length = int(name['length'])
    if name['unit'] == 'e':
        assert cfg.train_cfg.max_epochs == length
    else:
        assert cfg.train_cfg.max_iters == 1000 * length
        assert not any(s.get('by_epoch', True) for s in cfg.param_scheduler)
        assert cfg.log_processor.by_epoch is False
        assert cfg.default_hooks.checkpoint.by_epoch is False
    cosine = [s for s in cfg.param_scheduler if s.type == 'CosineAnnealingLR']
    assert len(cosine) == (name['schedule'] == 'coslr')
    assert all(s.get('convert_to_iter_based', not s.by_epoch) for s in cosine)
    if name['schedule'] == 'adam':
        assert optimizer.type == 'Adam'

    images = labelled_by(train.dataset)
    assert images.type == DATASETS[name['data']]
    assert_labels(train, name['labels'])
    size = int(name['size'] or SIZES[name['data']])
    growing = [t for t in images.pipeline if t.get('milestones')]
    if growing:  # up to a smaller size than that of the test, see docs/small_images.md
        assert max(sizes_in(images.pipeline)) < size
    else:
        assert size in sizes_in(images.pipeline)
    assert size in sizes_in(cfg.test_dataloader.dataset.pipeline)

    if name['task'] and 'distil' in name['task']:
        assert_distilled(cfg, name['task'])
        return
    if name['task']:
        (hook,) = cfg.custom_hooks
        assert hook.frozen == (name['task'] == 'linear')
        assert backbone.init_cfg.checkpoint is None
        selector = None if name['selector'] is None else int(name['selector'])
        assert cfg.model.neck.get('until') == selector
        return
    (views,) = [t for t in train.dataset.pipeline if t.type == 'simclr_mm.TwoViews']
    assert views.augment == 'auto'  # where the device is
    assert max([0, *views.get('milestones', [])]) < length
    averaged = name['algorithm'] == 'avgsimclr'
    many = views.get('num_views', 2) >= 4
    assert many if averaged else growing or not many
    assert (cfg.model.head.get('pairs') == 'separate') == averaged
    first_trials = name['algorithm'] == 'simclr-v0'
    assert (cfg.sync_bn is None) == first_trials
    assert optimizer.get('include_1d', False) == first_trials
    # Published results of the step-based recipes are those of an online probe.
    probed = 'online_probe' in cfg.model
    assert probed == (name['unit'] == 'k') == train.dataset.with_label
    if probed:
        keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
        assert keys['probe.'].trust_denominator is None
        assert 'simclr_mm.ProbeAccuracy' in [e.type for e in evaluators(cfg, 'val')]


def assert_distilled(cfg, task):
    """SimCLRv2: no labels, temperature 0.1 for a student like its teacher, else 1."""
    assert (cfg.model.type, cfg.model.teacher) == ('simclr_mm.Distillation', None)
    assert cfg.model.temperature == (0.1 if task == 'selfdistil' else 1.0)
    assert cfg.model.get('alpha', 1) == 1
    assert cfg.train_dataloader.dataset.with_label is False
    from_encoder = cfg.model.backbone.get('init_cfg') is not None
    assert [hook.frozen for hook in cfg.get('custom_hooks', [])] == [False] * from_encoder


def labelled_by(dataset):
    """The dataset with the images, also where a LabelSubset is around it."""
    return dataset.dataset if dataset.type == 'simclr_mm.LabelSubset' else dataset


def assert_labels(loader, labels):
    """A name's ``1pct`` or ``5perclass``, or None for all labels."""
    subset = loader.dataset
    assert (subset.type == 'simclr_mm.LabelSubset') == (labels is not None)
    if labels is None:
        return
    assert loader.drop_last  # no step with a handful of images
    number, unit = re.fullmatch(r'(\d+)(\w+)', labels).groups()
    said = {key: subset.get(key) for key in ('list_file', 'share', 'per_class')}
    said = {key: value for key, value in said.items() if value is not None}
    if subset.dataset.type == 'ImageNet':
        assert said == dict(list_file=f'data/imagenet/{number}percent.txt')
    elif unit == 'pct':
        assert said == dict(share=int(number) / 100)
    else:
        assert said == dict(per_class=int(number))


def sizes_in(pipeline):
    keys = ('size', 'scale', 'crop_size')
    found = [t[key] for t in pipeline for key in keys if isinstance(t.get(key), (int, list))]
    return {each[-1] if isinstance(each, list) else each for each in found}


@each_config
def test_evaluation_is_complete_and_inheritance_has_two_steps(path):
    cfg = read(path)
    for phase in ('val', 'test'):
        kind = 'Accuracy' if path in BENCHMARKS else 'simclr_mm.KNNAccuracy'
        assert evaluators(cfg, phase)[0].type == kind
        assert cfg[f'{phase}_dataloader'].dataset.pipeline
        assert cfg[f'{phase}_cfg'] is not None
    assert depth_of(path) <= 2


def depth_of(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '_base_':
            bases = ast.literal_eval(node.value)
            bases = [bases] if isinstance(bases, str) else bases
            assert '_base_' not in path.parts or not bases
            return 1 + max(depth_of(path.parent / base) for base in bases)
    return 0


def test_paper_recipe_in_numbers():
    cfg = Config.fromfile(ROOT / 'simclr_r50_16xb256-coslr-800e_in1k.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer.lr == pytest.approx(0.3 * 4096 / 256)
    assert (optimizer.weight_decay, optimizer.momentum) == (1e-6, 0.9)
    assert cfg.model.head.temperature == 0.1
    assert [s.get('end') or s.begin for s in cfg.param_scheduler] == [10, 10]


def test_semi_supervised_recipe_in_numbers():
    """Appendix B.5, on ImageNet as it is and elsewhere by its rule."""
    epochs = {'1pct': 60, '10pct': 30}
    paths = [path for path in BENCHMARKS if '-finetune-coslr-' in path.stem]  # not -finetune-proj
    assert len(paths) >= 9
    for path in paths:
        cfg, name = read(path), NAME.fullmatch(path.stem)
        optimizer = cfg.optim_wrapper.optimizer
        assert optimizer.lr == pytest.approx(0.05 * global_batch(path) / 256)
        assert (optimizer.type, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (
            'SGD',
            0.9,
            True,
            0.0,
        )
        assert [s.type for s in cfg.param_scheduler] == ['CosineAnnealingLR']
        assert cfg.train_cfg.max_epochs == epochs.get(name['labels'], int(name['length']))
        assert cfg.model.head.init_cfg == dict(type='Constant', layer='Linear', val=0.0)
        kinds = {t.type for t in labelled_by(cfg.train_dataloader.dataset).pipeline}
        assert kinds <= CROP_AND_FLIP


# README of github.com/google-research/simclr: millions of parameters.
PUBLISHED = {'r50': 24, 'r50-sk': 35, 'r50w2': 94, 'r50w2-sk': 140, 'r101': 43, 'r152w3-sk': 795}


@pytest.mark.parametrize(
    'path', [path for path in PRETRAINING if 'simclr-v2' in path.stem], ids=lambda path: path.stem
)
def test_second_paper_in_numbers(path):
    cfg = read(path)
    millions = PUBLISHED[path.stem.split('_')[1]]
    with on_meta():
        backbone = build(cfg.model.backbone, MODELS)
    assert round(sum(p.numel() for p in backbone.parameters()) / 1e6) == millions
    optimizer, scale = cfg.optim_wrapper.optimizer, cfg.auto_scale_lr
    assert optimizer.lr == pytest.approx(0.1 * math.sqrt(scale.base_batch_size)) == 6.4
    assert (optimizer.type, optimizer.momentum) == ('simclr_mm.LARS', 0.9)
    assert (optimizer.weight_decay, scale.rule) == (1e-4, 'sqrt')
    assert [s.get('end') or s.begin for s in cfg.param_scheduler] == [40, 40]  # 5 % of 800
    neck = cfg.model.neck
    assert (neck.num_layers, neck.out_channels, neck.last_bias) == (3, 128, False)
    assert 'hid_channels' not in neck  # as wide as the features
    assert cfg.model.head.temperature == 0.1


def test_all_published_encoders_of_the_second_paper():
    found = {path.stem.split('_')[1] for path in PRETRAINING if 'simclr-v2' in path.stem}
    assert found == set(PUBLISHED)


def test_fine_tuning_from_the_middle_in_numbers():
    paths = [path for path in BENCHMARKS if '-proj' in path.stem]
    assert len(paths) == 9
    for path in paths:
        cfg, name = read(path), NAME.fullmatch(path.stem)
        optimizer, scale = cfg.optim_wrapper.optimizer, cfg.auto_scale_lr
        assert (optimizer.type, optimizer.weight_decay) == ('simclr_mm.LARS', 0.0)
        assert optimizer.lr == pytest.approx(0.005 * math.sqrt(scale.base_batch_size))
        assert scale.rule == 'sqrt'
        if name['data'] == 'in1k':
            assert (scale.base_batch_size, optimizer.lr) == (1024, pytest.approx(0.16))
            assert cfg.model.neck.until == (0 if name['labels'] is None else 1)
        assert [s.type for s in cfg.param_scheduler] == ['CosineAnnealingLR']
        assert cfg.train_cfg.max_epochs == (60 if name['labels'] == '1pct' else 30)
        assert cfg.model.neck.in_channels == cfg.model.head.in_channels
        assert cfg.model.head.init_cfg == dict(type='Constant', layer='Linear', val=0.0)
        keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
        assert keys['head.'].trust_denominator is None
        kinds = {t.type for t in labelled_by(cfg.train_dataloader.dataset).pipeline}
        assert kinds <= CROP_AND_FLIP


def test_distillation_recipe_in_numbers():
    """SimCLRv2, Sec. 3.1: as in pretraining, 400 epochs."""
    cfg = Config.fromfile(ROOT / 'benchmarks/r50_8xb512-selfdistil-coslr-400e_in1k.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer.lr == pytest.approx(0.1 * 4096**0.5)
    assert (optimizer.type, optimizer.weight_decay) == ('simclr_mm.LARS', 1e-4)
    assert [s.get('end') or s.begin for s in cfg.param_scheduler] == [0.05 * 400] * 2
    kinds = [t.type for t in cfg.train_dataloader.dataset.pipeline]
    assert kinds[1:] == ['RandomResizedCrop', 'RandomFlip', 'PackInputs']


def test_every_entry_names_a_config_and_its_downstream_models():
    names = {entry['Name'] for entry in ENTRIES}
    assert len(names) == len(ENTRIES)
    for entry in ENTRIES:
        assert (ROOT.parent / entry['Config']).is_file()
        assert set(entry.get('Downstream', [])) <= names
        if 'Weights' in entry:
            address, name = entry['Weights'].rsplit('/', 1)
            assert re.fullmatch(r'\S+_\d{8}-[0-9a-f]{8}\.pth', name)
            # In the package, or on the web.
            assert address == 'simclr_mm/weights' or re.match(r'https://[\w.-]+/', address)
    assert names == set(simclr_mm.list_models())


def test_every_result_says_who_measured_it():
    rows = [(entry, row) for entry in ENTRIES for row in entry['Results'] or []]
    assert rows
    for entry, row in rows:
        assert set(row) == {'Task', 'Dataset', 'Metrics', 'Source'}
        assert row['Dataset'].removesuffix(' (JPEG)') in TRAINING_DATA.values()
        assert row['Metrics']
        assert all(0 <= value <= 100 for value in row['Metrics'].values())
        # Only OpenMMLab's own files carry numbers that OpenMMLab published.
        theirs = 'https://download.openmmlab.com/' in entry.get('Weights', '')
        assert row['Source'] == ('published by OpenMMLab' if theirs else 'measured here')


def test_the_index_is_valid():
    index = modelindex.load(str(ROOT.parent / 'model-index.yml'))
    problems = [
        error
        for found in index.collect_check_errors()
        for error in found['errors']
        if 'README' not in error  # modelindex looks beside the file; checked below
    ]
    assert problems == []
    assert [collection['Name'] for collection in METAFILE['Collections']] == ['SimCLR', 'SimCLRv2']
    for collection in METAFILE['Collections']:
        # What a collection says, it says of every model in it.
        assert set(collection['Metadata']) == {'Architecture'}
        assert re.fullmatch(r'https://arxiv\.org/abs/\d{4}\.\d{5}', collection['Paper']['URL'])
    assert all((ROOT.parent / c['README']).is_file() for c in METAFILE['Collections'])
