"""A small SimCLR on digits, stopped and resumed in every way, in this process."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from digits_run import BY_ITERATION, EVERY_EPOCH, EVERY_ITERATION, losses, runner
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader

from simclr_mm.engine import FreeCoresHook, Runner
from simclr_mm.engine.loader_workers import start_worker
from simclr_mm.engine.runner import build_runner
from simclr_mm.errors import MissingFileError, UserError


@pytest.fixture(scope='module', params=[{}, BY_ITERATION], ids=['epochs', 'iterations'])
def whole(request, tmp_path_factory):
    """An unbroken run of 12 iterations with a checkpoint after each; its options."""
    options = {**request.param, **EVERY_ITERATION}
    run = runner(tmp_path_factory.mktemp('whole'), **options)
    run.train()
    return run, options


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """An unbroken run of three epochs with a checkpoint after each."""
    run = runner(tmp_path_factory.mktemp('plain') / 'run', **EVERY_EPOCH)
    run.train()
    return run


@pytest.mark.portable
@pytest.mark.parametrize('iteration', [3, 4, 6, 8])  # 4 and 8 end an epoch
def test_resume_at_any_iteration_equals_the_unbroken_run(whole, tmp_path, iteration):
    run, options = whole
    file = Path(run.work_dir, f'iter_{iteration}.pth')
    # The seed of the views is the checkpoint's, not a new random one.
    options = {**options, 'randomness.seed': None}
    rest = runner(tmp_path, **options, load_from=str(file), resume=True)
    rest.train()
    expected = {step: loss for step, loss in losses(run).items() if step > iteration}
    assert sorted(expected) == list(range(iteration + 1, 13))
    assert losses(rest) == expected
    for key, value in run.model.state_dict().items():
        assert torch.equal(value, rest.model.state_dict()[key]), key


def test_resume_from_a_checkpoint_of_an_epoch_equals_the_unbroken_run(plain, tmp_path):
    rest = runner(tmp_path, resume=True, load_from=f'{plain.work_dir}/epoch_2.pth')
    rest.train()
    expected = {step: loss for step, loss in losses(plain).items() if step > 8}
    assert losses(rest) == expected and len(expected) == 4


def test_workers_change_nothing(plain, tmp_path):
    workers = runner(
        tmp_path, **{'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': True}
    )
    workers.train()
    assert losses(workers) == losses(plain)
    assert workers.train_dataloader.worker_init_fn.func is start_worker


def test_resume_with_another_batch_is_refused(plain, tmp_path):
    file = f'{plain.work_dir}/epoch_1.pth'
    other = runner(tmp_path, **{'train_dataloader.batch_size': 8}, resume=True, load_from=file)
    with pytest.raises(
        ValueError, match='70 images in 4 steps of 1 x 16, this one has 70 images in 8'
    ):
        other.train()


@pytest.mark.parametrize('loop', [{}, BY_ITERATION], ids=['epochs', 'iterations'])
def test_validation_runs_and_training_goes_on(tmp_path, loop):
    options = {**loop, 'train_cfg.val_interval': 4 if loop else 1}
    for part, images in (('gallery', 300), ('query', 100)):
        options[f'val_dataloader.dataset.{part}.indices'] = images
    trained = runner(tmp_path / 'run', validate=True, **options)
    trained.train()
    assert trained.model.training is False  # the last thing was a validation
    file = Path(trained.log_dir) / 'vis_data' / 'scalars.json'
    scores = [json.loads(line).get('knn/top1') for line in file.read_text().splitlines()]
    scores = [score for score in scores if score is not None]
    assert len(scores) == 3 and min(scores) > 20  # chance: 10
    assert sorted(losses(trained)) == list(range(1, 13))


@pytest.mark.parametrize(
    'options, keys',
    [
        (
            {'train_cfg.max_epochs': 3, 'param_scheduler.0.end': 10},
            ('param_scheduler.0.end = 10 epochs', 'train_cfg.max_epochs = 3'),
        ),
        (
            {'param_scheduler.1.begin': 3},
            ('param_scheduler.1.begin = 3 epochs', 'train_cfg.max_epochs = 3'),
        ),
        (
            {**BY_ITERATION, 'param_scheduler': [dict(type='LinearLR', by_epoch=False, end=13)]},
            ('param_scheduler.0.end = 13 iterations', 'train_cfg.max_iters = 12'),
        ),
    ],
)
def test_a_schedule_longer_than_the_run_names_both_keys(tmp_path, options, keys):
    with pytest.raises(ValueError) as error:
        runner(tmp_path, **options).train()
    assert all(key in str(error.value) for key in keys)


@pytest.mark.parametrize('convert', [False, True])
def test_a_schedule_in_epochs_where_the_loop_counts_iterations(tmp_path, convert):
    cosine = dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=convert)
    run = runner(tmp_path, **{**BY_ITERATION, 'param_scheduler': [cosine]})
    with pytest.raises(UserError, match='param_scheduler.0 counts epochs.*write by_epoch=False'):
        run.train()


def test_a_schedule_of_validations_where_the_loop_counts_iterations(tmp_path):
    options = {**BY_ITERATION, 'train_cfg.val_interval': 4}
    for part, images in (('gallery', 300), ('query', 100)):
        options[f'val_dataloader.dataset.{part}.indices'] = images
    plateau = dict(type='ReduceOnPlateauLR', monitor='knn/top1', patience=0, threshold=1000)
    run = runner(tmp_path, validate=True, **{**options, 'param_scheduler': [plateau]})
    before = run.cfg.optim_wrapper.optimizer.lr
    run.train()
    assert run.optim_wrapper.get_lr()['lr'][0] < before


class DrawsFromNumPy(Hook):
    """As mmpretrain's Mixup does in the model's step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.drawn = {**getattr(self, 'drawn', {}), runner.iter: np.random.rand()}


def test_drop_path_goes_on(tmp_path):
    """What the model draws does not depend on where the run was stopped."""
    options = {**EVERY_ITERATION, 'model.backbone.drop_path_rate': 0.5}
    hooks = [DrawsFromNumPy(), DrawsFromNumPy()]
    whole = runner(tmp_path / 'whole', **options)
    whole.register_hook(hooks[0])
    whole.train()
    plain = runner(tmp_path / 'plain')
    plain.train()
    assert losses(whole)[3] != losses(plain)[3]  # something is dropped
    for step in (4, 6):
        file = str(tmp_path / 'whole' / f'iter_{step}.pth')
        rest = runner(tmp_path / f'{step}', **options, resume=True, load_from=file)
        torch.rand(step), np.random.rand(step)  # another past
        rest.register_hook(hooks[1])
        rest.train()
        assert all(hooks[0].drawn[k] == drawn for k, drawn in hooks[1].drawn.items())
        assert losses(rest) == {k: loss for k, loss in losses(whole).items() if k > step}


def test_a_dataset_smaller_than_a_batch(tmp_path):
    with pytest.raises(ValueError, match='70 images, fewer than one batch.* = 71 '):
        runner(tmp_path, **{'train_dataloader.batch_size': 71}).train()


@pytest.mark.parametrize(
    'dataset, option',
    [
        (dict(type='ImageNet', data_root='no'), '{val,test}_dataloader.dataset.data_root'),
        (
            dict(
                type='simclr_mm.ReplaceUnreadable',
                dataset=dict(
                    type='simclr_mm.LabelSubset',
                    share=0.5,
                    dataset=dict(type='ImageNet', data_root='no', split='train'),
                ),
            ),
            'train_dataloader.dataset.dataset.data_root',
        ),
        (
            dict(
                type='simclr_mm.GalleryAndQuery',
                pipeline=[],
                gallery=dict(type='ImageNet', data_root='no', split='train'),
                query=dict(type='CIFAR10'),
            ),
            '{val,test}_dataloader.dataset.gallery.data_root',
        ),
    ],
)
def test_a_missing_folder_names_the_option(dataset, option):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        with pytest.raises(FileNotFoundError, match='Put the data there') as error:
            Runner.build_dataloader(dict(dataset=dataset, batch_size=1))
    assert str(error.value).endswith(f' --cfg-options {option}=DIR')


def test_a_list_of_missing_files_says_all_by_itself(tmp_path):
    (tmp_path / 'list.txt').write_text('gone.png')
    dataset = dict(type='simclr_mm.ImageList', places=[str(tmp_path / 'list.txt')])
    with pytest.raises(MissingFileError) as error:
        Runner.build_dataloader(dict(dataset=dataset, batch_size=1))
    assert '--cfg-options' not in str(error.value) and 'gone.png' in str(error.value)


def test_a_sampler_that_cannot_resume(tmp_path):
    with pytest.raises(ValueError, match="type='simclr_mm.ResumableSampler'"):
        runner(tmp_path, **{'train_dataloader.sampler.type': 'DefaultSampler'}).train()


@pytest.mark.parametrize('name', ['default_collate', 'pseudo_collate'])
def test_a_collate_function_for_single_samples(tmp_path, name):
    with pytest.raises(ValueError, match=f"is {name}, .*type='simclr_mm.collate'"):
        runner(tmp_path, **{'train_dataloader.collate_fn.type': name}).train()


@pytest.mark.parametrize('rule, rate', [({}, 0.0005), (dict(rule='sqrt'), 0.001)])
def test_another_batch_than_the_learning_rate_was_made_for(tmp_path, rule, rate):
    """16 images in place of 64: a quarter of 0.002, or by the square root half of it."""
    options = {
        'auto_scale_lr': dict(base_batch_size=64, **rule),
        'train_cfg.max_epochs': 1,
        'param_scheduler': [],
    }
    warned = runner(tmp_path / 'a', **options)
    warned.train()
    log = next(Path(warned.log_dir).glob('*.log')).read_text()
    assert 'learning rate 0.002 is for batches of 64' in log
    assert f'would give {rate}' in log
    options['auto_scale_lr'] = dict(options['auto_scale_lr'], enable=True)
    scaled = runner(tmp_path / 'b', **options)
    scaled.train()
    assert scaled.optim_wrapper.get_lr()['lr'][0] == pytest.approx(rate)


def test_a_learning_rate_for_no_batch(tmp_path):
    options = {'param_scheduler': [], 'train_cfg.max_epochs': 1}
    options['auto_scale_lr'] = dict(_delete_=True, enable=False)
    runner(tmp_path / 'off', **options).train()
    options['auto_scale_lr'] = dict(_delete_=True, enable=True)
    with pytest.raises(UserError, match='auto_scale_lr lacks base_batch_size'):
        runner(tmp_path / 'on', **options).train()


def test_threads_are_given_back_whatever_ends_a_run(tmp_path, monkeypatch):
    class Interrupted(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            assert torch.get_num_threads() == 1
            raise KeyboardInterrupt

    monkeypatch.setattr(FreeCoresHook, '_chosen', lambda self, runner: 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            runner(tmp_path, custom_hooks=[Interrupted()]).train()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_rule_for_the_learning_rate_that_does_not_exist(tmp_path):
    options = {'auto_scale_lr': dict(base_batch_size=64, rule='square')}
    with pytest.raises(
        ValueError, match=r"auto_scale_lr\.rule = 'square': give 'linear' or 'sqrt'"
    ):
        runner(tmp_path, **options).train()


@pytest.mark.parametrize('count', [1, 2])
def test_accumulating_gradients_warns_that_it_adds_no_negatives(tmp_path, count):
    run = runner(
        tmp_path,
        **{
            'train_cfg.max_epochs': 1,
            'param_scheduler': [],
            'optim_wrapper.accumulative_counts': count,
        },
    )
    run.train()
    log = next(Path(run.log_dir).glob('*.log')).read_text()
    warning = 'accumulative_counts = 2 adds no negatives: the loss still compares the 16 images'
    advice = 'train_dataloader.batch_size=32 and model.micro_batch_size=16'
    assert log.count(warning) == log.count(advice) == count - 1


def test_loading_is_strict(plain, tmp_path):
    checkpoint = dict(state_dict=plain.model.state_dict())
    checkpoint['state_dict'].pop('neck.fc0.weight')
    torch.save(checkpoint, tmp_path / 'a.pth')
    with pytest.raises(RuntimeError, match='neck.fc0.weight'):
        runner(tmp_path / 'b', load_from=str(tmp_path / 'a.pth')).train()


def test_ranks_with_seeds_of_their_own_are_refused(tmp_path):
    with pytest.raises(ValueError, match='randomness.diff_rank_seed'):
        runner(tmp_path, **{'randomness.diff_rank_seed': True}).train()


def test_a_seed_of_the_sampler_survives_a_resume(tmp_path):
    options = {**EVERY_EPOCH, 'train_dataloader.sampler.seed': 77}
    runner(tmp_path / 'a', **options).train()
    rest = runner(tmp_path / 'b', resume=True, load_from=str(tmp_path / 'a' / 'epoch_2.pth'))
    rest.train()
    assert rest.train_dataloader.sampler.seed == 77


def test_compiling_the_training_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match='model.compile_backbone=True'):
        runner(tmp_path, compile=True).train()


def test_a_run_with_a_compiled_backbone(tmp_path):
    options = {'train_cfg.max_epochs': 1, 'param_scheduler': []}
    plain = runner(tmp_path / 'plain', **options)
    plain.train()
    compiled = runner(
        tmp_path / 'compiled', **options, **{'model.compile_backbone': dict(backend='eager')}
    )
    compiled.train()
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)
    keys = torch.load(tmp_path / 'compiled' / 'epoch_1.pth', weights_only=False)['state_dict']
    assert list(keys) == list(plain.model.state_dict())


def test_weights_on_a_gpu_have_the_order_of_the_images(tmp_path, monkeypatch):
    run = runner(tmp_path)
    weight = run.model.backbone.conv1.weight
    assert weight.is_contiguous()  # on this CPU
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr('mmengine.runner.runner.get_device', lambda: 'cpu')
    run.wrap_model(None, run.model)
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('images, left', [(17, 1), (18, 2), (16, 0)])
def test_one_image_left_is_refused_before_the_first_step(tmp_path, images, left):
    options = {
        'train_dataloader.drop_last': False,
        'train_dataloader.batch_size': 8,
        'train_dataloader.dataset.indices': images,
        'train_cfg.max_epochs': 1,
        'param_scheduler': [],
    }
    run = runner(tmp_path, **options)
    if left != 1:
        run.train()
        assert run.iter == 2 + (left > 0)
        return
    with pytest.raises(UserError, match='17 images with .*drop_last = False leave a batch of one'):
        run.train()
    assert not list(tmp_path.glob('*.pth'))


def test_a_batch_of_one_image_is_refused(tmp_path):
    with pytest.raises(UserError, match='train_dataloader.batch_size = 1 on 1 process'):
        runner(tmp_path, **{'train_dataloader.batch_size': 1}).train()


OURS = ('unreadable', 'non_finite', 'learning_watch', 'data_wait', 'preemption', 'progress')


@pytest.mark.parametrize('name', [*OURS, 'timer', 'sampler_seed'])
def test_a_default_hook_that_is_none_is_off(plain, tmp_path, name):
    run = runner(tmp_path, **{f'default_hooks.{name}': None})
    kinds = {type(hook) for hook in plain.hooks} - {type(hook) for hook in run.hooks}
    assert len(kinds) == 1 and len(run.hooks) == len(plain.hooks) - 1


def test_a_run_without_any_hook_of_ours(plain, tmp_path):
    run = runner(tmp_path, **{f'default_hooks.{name}': None for name in OURS})
    run.train()
    assert losses(run) == losses(plain)


def test_a_dataloader_that_is_built(plain, tmp_path):
    run = runner(tmp_path)
    run._train_dataloader = Runner.build_dataloader(plain.cfg.train_dataloader, seed=run.seed)
    run.train()
    assert losses(run) == losses(plain)


@pytest.mark.parametrize('loader', [[1, 2], DataLoader([1, 2])], ids=['list', 'DataLoader'])
def test_a_dataloader_that_cannot_resume(tmp_path, loader):
    """A list is what mmpretrain's vis_scheduler.py gives."""
    run = runner(tmp_path)
    run._train_dataloader = loader
    with pytest.raises(UserError, match="need dict.type='simclr_mm.ResumableSampler'"):
        run.train()


def test_views_of_single_images_need_a_collate_function(tmp_path):
    options = {
        'train_dataloader.dataset.batched': False,
        'train_dataloader.collate_fn': dict(_delete_=True, type='pseudo_collate'),
    }
    with pytest.raises(UserError, match="write collate_fn=dict\\(type='default_collate'\\)"):
        runner(tmp_path, **options).train()


def test_an_optimizer_of_the_default_scope(tmp_path):
    """mmpretrain's own LARS, by the name that its configs use."""
    options = {'train_cfg.max_epochs': 1, 'param_scheduler': []}
    options['optim_wrapper.optimizer'] = dict(_delete_=True, type='LARS', lr=0.1)
    run = runner(tmp_path, **options)
    run.train()
    assert type(run.optim_wrapper.optimizer).__module__.startswith('mmpretrain.')


def test_mmengines_runner_gives_threads_back(tmp_path, monkeypatch):
    monkeypatch.setattr(FreeCoresHook, '_chosen', lambda self, runner: 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cfg = runner(tmp_path, **{'train_cfg.max_epochs': 1, 'param_scheduler': []}).cfg
        cfg.pop('runner_type')
        cfg.experiment_name = 'threads'
        build_runner(cfg).train()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize('kind, said', [('ResNet', True), ('ResNet_CIFAR', False)])
def test_a_stem_for_photographs_before_small_views(tmp_path, kind, said):
    run = runner(tmp_path, **{'model.backbone.type': kind})
    run.build_train_loop(run._train_loop)
    log = next(Path(run.log_dir).glob('*.log')).read_text()
    assert ('ResNet divides the side of a view by 4' in log) == said
