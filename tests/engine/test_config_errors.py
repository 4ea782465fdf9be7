"""A part that cannot be built is named by its place in the config, in one line."""

import pytest
import torch
from digits_run import runner

from simclr_mm.engine.config_errors import building_from
from simclr_mm.errors import NotFiniteError, UserError


@pytest.mark.parametrize(
    ('key', 'value', 'words'),
    [
        ('model.backbone.type', 'ResNet_CIFA', r'model\.backbone\.type: .* Close: ResNet_CIFAR'),
        ('model.head.kind', 1, r'model\.head\.kind: NTXentHead has no argument'),
        ('model.neck.out_channels', 0, r'out_channels must be >= 1'),
        ('default_hooks.logger.interval', 0, r'default_hooks\.logger: LoggerHook .*interval'),
    ],
)
def test_what_the_runner_builds(tmp_path, key, value, words):
    with pytest.raises(UserError, match=words):
        runner(tmp_path, **{key: value})


@pytest.mark.parametrize(
    ('key', 'value', 'words'),
    [
        ('optim_wrapper.optimizer.type', 'Adaam', r'optimizer\.type: .*Close: Adam'),
        ('optim_wrapper.optimizer.lr', -1, r'optimizer: .*Invalid learning rate: -1'),
        ('optim_wrapper.optimizer.speed', 1, r'optim_wrapper\.optimizer: .*speed'),
        ('train_dataloader.dataset.type', 'simclr_mm.Digitz', r'Close: simclr_mm\.Digits'),
        ('train_dataloader.dataset.pipeline.0.type', 'TwoView', r'pipeline\.0\.type: '),
        ('train_cfg.type', '', r"train_cfg\.type: there is no loop of type ''"),
        ('train_cfg.by_epoch', 'abc', r'train_cfg: .*by_epoch'),
        ('optim_wrapper.clip_grad', dict(max_norm='abc'), r"clip_grad = .*'abc'"),
        ('optim_wrapper.clip_grad', dict(max_norm=-1), r'clip_grad = .*a bound above 0'),
        ('optim_wrapper.clip_grad', dict(max_nrm=1), r'clip_grad = .*max_nrm'),
        ('optim_wrapper.clip_grad', dict(type='value', clip_value=0), r'a bound above 0'),
        ('train_cfg.speed', 1, r'train_cfg\.speed: EpochBasedTrainLoop'),
        ('train_dataloader.timeout', -1, r'^train_dataloader: .*timeout'),
        ('param_scheduler.0.type', 'LinearLRR', r'^param_scheduler\.0\.type: .*Close: LinearLR'),
    ],
)
def test_what_a_training_builds(tmp_path, key, value, words):
    with pytest.raises(UserError, match=words) as error:
        runner(tmp_path, **{key: value}).train()
    assert '\n' not in str(error.value)


def test_a_fault_elsewhere_keeps_its_kind():
    with pytest.raises(AttributeError), building_from({}):
        torch.no_such_name  # noqa: B018


def test_a_fault_of_this_package_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr('simclr_mm.datasets.sampler.get_dist_info', None)
    with pytest.raises(TypeError):
        runner(tmp_path).train()


@pytest.mark.parametrize('key', ['val_cfg.speed', 'val_dataloader.timeout'])
def test_what_a_validation_builds(tmp_path, key):
    run = runner(tmp_path, validate=True, **{key: -1})
    with pytest.raises(UserError, match=f'^{key.partition(".")[0]}: .*{key.partition(".")[2]}'):
        run.val()


def test_runners_of_one_second_share_no_name(tmp_path):
    names = {runner(tmp_path / name).experiment_name for name in 'abc'}
    assert len(names) == 3


def test_a_training_that_diverges_is_the_users_to_mend():
    assert issubclass(NotFiniteError, UserError) and issubclass(NotFiniteError, FloatingPointError)
