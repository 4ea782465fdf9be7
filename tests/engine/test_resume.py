"""What a resumed run does and may change, against runs that were never stopped."""

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
import torch
from digits_run import BY_ITERATION, CONFIGS, EVERY_EPOCH, losses, runner
from mmengine.config import Config
from mmengine.hooks import Hook

from simclr_mm.apis.loading import load_encoder
from simclr_mm.checkpoints.stored_config import parse_settings
from simclr_mm.engine.hooks.free_cores import THREADS
from simclr_mm.engine.optim_wrapper import native_bf16
from simclr_mm.engine.resume import check_resumable, latest_checkpoint, settings
from simclr_mm.engine.runner import build_runner
from simclr_mm.errors import CheckpointError, MissingFileError, UserError

VALIDATED = {
    **EVERY_EPOCH,
    'train_cfg.max_epochs': 5,
    'train_cfg.val_interval': 1,
    'val_dataloader.dataset.gallery.indices': 60,
    'val_dataloader.dataset.query.indices': 40,
    'default_hooks.checkpoint.save_best': 'knn/top1',
}
KNN = dict(monitor='knn/top1', rule='greater')
# A threshold that no score reaches: each validation after the first counts as bad.
PLATEAU = {'param_scheduler': [dict(type='ReduceOnPlateauLR', **KNN, patience=0, threshold=50)]}
STOPPING = {
    'custom_hooks': [dict(type='EarlyStoppingHook', **KNN, min_delta=50, patience=2)],
    'param_scheduler': [],
}


class Kill(Hook):
    """Ends the run at the start of a validation, as a kill there would."""

    def __init__(self, epoch):
        self.epoch = epoch

    def before_val(self, runner):
        if runner.epoch == self.epoch:
            raise KeyboardInterrupt


def entries(run):
    file = Path(run.log_dir) / 'vis_data' / 'scalars.json'
    return [json.loads(line) for line in file.read_text().splitlines()]


def rates(run):
    return {entry['step']: entry['lr'] for entry in entries(run) if 'loss' in entry}


def best(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob('best_*')}.keys()


def scores(run):
    return [entry['knn/top1'] for entry in entries(run) if 'knn/top1' in entry]


def logged(folder):
    """The losses of the run in a folder, by step."""
    lines = next(Path(folder).glob('*/vis_data/scalars.json')).read_text().splitlines()
    return {entry['step']: entry['loss'] for entry in map(json.loads, lines) if 'loss' in entry}


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    """A run of up to five epochs that was never stopped, made once for the same options."""
    made = {}

    def train(options):
        if str(options) not in made:
            folder = tmp_path_factory.mktemp('unbroken')
            made[str(options)] = run = runner(folder, validate=True, **VALIDATED, **options)
            run.train()
        return made[str(options)]

    return train


@pytest.mark.parametrize('epoch', [1, 3, 4])
def test_a_plateau_schedule_goes_on(unbroken, tmp_path, epoch):
    whole = unbroken(PLATEAU)
    assert len(set(rates(whole).values())) == 4  # 0.002, 0.0002, ...
    file = f'{whole.work_dir}/epoch_{epoch}.pth'
    rest = runner(tmp_path, validate=True, **VALIDATED, **PLATEAU, resume=True, load_from=file)
    rest.train()
    assert rates(rest) == {step: rate for step, rate in rates(whole).items() if step > 4 * epoch}
    assert losses(rest) == {step: x for step, x in losses(whole).items() if step > 4 * epoch}
    assert scores(rest) == scores(whole)[epoch - 1 :]  # the one that was due, and the others


@pytest.mark.parametrize('epoch', [1, 2, 3])
def test_early_stopping_stops_at_the_same_epoch(unbroken, tmp_path, epoch):
    whole = unbroken(STOPPING)
    assert whole.epoch == 3
    file = f'{whole.work_dir}/epoch_{epoch}.pth'
    rest = runner(tmp_path, validate=True, **VALIDATED, **STOPPING, resume=True, load_from=file)
    rest.train()
    assert rest.epoch == 3


@pytest.mark.parametrize('epoch', [1, 2, 5])
def test_a_kill_between_a_save_and_its_validation(unbroken, tmp_path, epoch):
    options = {**VALIDATED, 'param_scheduler': []}
    whole = unbroken({'param_scheduler': []})
    killed = runner(tmp_path / 'killed', validate=True, **options)
    killed.register_hook(Kill(epoch))
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    rest = runner(tmp_path / 'killed', validate=True, **options, resume=True)
    rest.train()
    assert best(tmp_path / 'killed') == best(whole.work_dir)
    key = 'best_score'
    assert rest.message_hub.get_info(key) == whole.message_hub.get_info(key)
    assert scores(rest)[-1] == scores(whole)[-1]
    logged = {key for entry in entries(whole) if 'knn/top1' in entry for key in entry}
    assert logged == {'knn/top1', 'knn/top5', 'data_time', 'time', 'step'}


def test_a_kill_before_a_validation_by_iteration(tmp_path):
    options = {
        **VALIDATED,
        **BY_ITERATION,
        'default_hooks.checkpoint.by_epoch': False,
        'default_hooks.checkpoint.interval': 5,
    }
    options['train_cfg'] = {**BY_ITERATION['train_cfg'], 'val_interval': 5}
    del options['train_cfg.max_epochs'], options['train_cfg.val_interval']
    whole = runner(tmp_path / 'whole', validate=True, **options)
    whole.train()
    rest = runner(
        tmp_path / 'rest',
        validate=True,
        **options,
        resume=True,
        load_from=str(tmp_path / 'whole' / 'iter_5.pth'),
    )
    rest.train()
    assert scores(rest) == scores(whole) and len(scores(whole)) == 3  # after 5, 10 and 12


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """The folder of a run of three epochs with its checkpoints and its best one."""
    folder = tmp_path_factory.mktemp('saved')
    options = {**VALIDATED, 'train_cfg.max_epochs': 3}
    runner(folder, validate=True, **options).train()
    return folder


@pytest.mark.parametrize(
    'options, named',
    [
        ({'train_cfg.max_epochs': 8}, 'train_cfg.max_epochs = 8 (was 3)'),
        ({'train_cfg.max_epochs': 2}, 'train_cfg.max_epochs = 2 (was 3)'),
        ({'optim_wrapper.optimizer.lr': 0.1}, 'optim_wrapper.optimizer.lr = 0.1 (was 0.002)'),
        ({'optim_wrapper.optimizer.type': 'SGD'}, "optimizer.type = 'SGD' (was 'Adam')"),
        ({'optim_wrapper.accumulative_counts': 2}, 'accumulative_counts = 2 (was None)'),
        ({'param_scheduler.1.eta_min': 0.001}, 'param_scheduler.1.eta_min = 0.001 (was 0.0)'),
        ({'param_scheduler': []}, 'param_scheduler.0.begin = None (was 0)'),
        (
            {'auto_scale_lr': dict(enable=True, base_batch_size=16)},
            'auto_scale_lr.base_batch_size = 16 (was None)',
        ),
        ({'randomness.seed': 6}, 'randomness.seed = 6 (was 5)'),
        ({'train_dataloader.sampler.seed': 6}, 'sampler.seed = 6 (was None)'),
        ({'train_dataloader.sampler.shuffle': False}, 'sampler.shuffle = False (was None)'),
        (
            {
                'model.online_probe': dict(num_classes=10),
                'train_dataloader.dataset.with_label': True,
            },
            'model.online_probe.num_classes = 10 (was None)',
        ),
    ],
)
def test_what_cannot_change_is_named(saved, tmp_path, options, named):
    file = str(saved / 'epoch_1.pth')
    run = runner(tmp_path, **options, resume=True, load_from=file)
    with pytest.raises(UserError) as error:
        run.train()
    message = str(error.value)
    assert named in message and f'load_from={file}' in message and '\n' not in message


def test_weights_to_begin_with_where_there_is_nothing_to_resume(saved, tmp_path):
    """A job that is started with the same command each time."""
    weights = tmp_path / 'weights.pth'
    state = torch.load(saved / 'epoch_3.pth', weights_only=False)['state_dict']
    torch.save(dict(state_dict=state), weights)
    options = {'train_cfg.max_epochs': 1, 'optim_wrapper.optimizer.lr': 0.0}
    options.update(param_scheduler=[], resume='auto', load_from=str(weights))
    first = runner(tmp_path / 'run', **options)
    first.train()
    assert first.iter == 4
    for key, value in first.model.named_parameters():
        assert torch.equal(value, state[key])
    second = runner(tmp_path / 'run', **options)
    second.train()
    assert second._load_from == str(tmp_path / 'run' / 'epoch_1.pth') and second._resume is True


@pytest.mark.parametrize('resume', ['auto', True])
def test_a_resumed_run_s_config_tests_the_named_checkpoint(saved, tmp_path, resume):
    """MMEngine writes the config of a run into its work dir, with what the flags made of it."""
    folder = tmp_path / 'run'
    shutil.copytree(saved, folder)
    (best,) = saved.glob('best_*.pth')
    tested = runner(folder, resume=resume, load_from=str(best), validate=True, **VALIDATED)
    tested.test()
    state = torch.load(best, weights_only=False)['state_dict']
    for key, value in tested.model.state_dict().items():
        assert torch.equal(value, state[key])


def test_mmengines_runner_resumes_the_latest(saved, tmp_path):
    cfg = runner(tmp_path, **VALIDATED).cfg
    cfg.pop('runner_type')
    cfg.update(resume='auto', load_from='absent.pth')
    built = build_runner(cfg)
    assert built._resume is True and built._load_from is None


def test_a_run_goes_on_from_a_storage(saved, tmp_path, monkeypatch):
    """The work dir is empty. A copy of the run lies on a storage, under another address."""
    monkeypatch.setenv('SIMCLR_MM_HOME', str(tmp_path / 'home'))
    memory = fsspec.filesystem('memory')
    memory.pipe_file('/storage/rest/epoch_2.pth', (saved / 'epoch_2.pth').read_bytes())
    memory.pipe_file('/storage/rest/last_checkpoint', b's3://elsewhere/rest/epoch_2.pth\n')
    options = {**VALIDATED, 'train_cfg.max_epochs': 3, 'resume': True}
    options['default_hooks.checkpoint.out_dir'] = 'memory://storage'
    rest = runner(tmp_path / 'rest', validate=True, **options)
    rest.train()
    assert losses(rest) == {step: loss for step, loss in logged(saved).items() if step > 8}
    assert not list((tmp_path / 'home').rglob('*.pth'))  # no copy for each restart
    named = memory.cat('/storage/rest/last_checkpoint')
    assert named == b'memory://storage/rest/epoch_3.pth'
    encoder = load_encoder('memory://storage/rest/epoch_3.pth')
    for key, value in encoder.model.state_dict().items():
        assert torch.equal(value, rest.model.state_dict()[key])


def test_what_may_change_changes_nothing(saved, tmp_path):
    options = {
        'train_dataloader.num_workers': 1,
        'train_dataloader.persistent_workers': True,
        'train_cfg.val_interval': 2,
        'default_hooks.checkpoint.interval': 2,
        'default_hooks.data_wait': None,
        'model.backbone.with_cp': False,
        # What 'auto' is here; an explicit one.
        'optim_wrapper.dtype': 'bfloat16' if native_bf16('cpu')[0] else 'float32',
        'randomness.seed': None,
    }
    rest = runner(tmp_path, **options, resume=True, load_from=str(saved / 'epoch_1.pth'))
    rest.train()
    assert losses(rest) == {step: loss for step, loss in logged(saved).items() if step > 4}
    log = next(Path(rest.log_dir).glob('*.log')).read_text()
    assert re.search("optim_wrapper.dtype = '.*' \\(was ", log)


def test_another_loss_is_used_and_said(saved, tmp_path):
    rest = runner(
        tmp_path,
        **{'model.head.temperature': 0.5},
        resume=True,
        load_from=str(saved / 'epoch_1.pth'),
    )
    rest.train()
    log = next(Path(rest.log_dir).glob('*.log')).read_text()
    assert 'From here on the run uses model.head.temperature = 0.5 (was 0.2).' in log


def test_a_longer_run_where_no_schedule_ends_with_it(tmp_path):
    """Warm-up alone: the rate of an epoch does not depend on how many there are."""
    schedule = {'param_scheduler': [dict(type='LinearLR', start_factor=0.1, by_epoch=True, end=2)]}
    runner(tmp_path / 'short', **EVERY_EPOCH, **schedule).train()
    options = {'train_cfg.max_epochs': 5, **schedule}
    whole = runner(tmp_path / 'whole', **options)
    whole.train()
    file = str(tmp_path / 'short' / 'epoch_3.pth')
    rest = runner(tmp_path / 'rest', **options, resume=True, load_from=file)
    rest.train()
    assert losses(rest) == {step: loss for step, loss in losses(whole).items() if step > 12}


def test_names_and_types_are_one_setting():
    from simclr_mm.engine import LARS

    by_name = Config(dict(optim_wrapper=dict(optimizer=dict(type='simclr_mm.LARS', betas=(1, 2)))))
    by_type = Config(dict(optim_wrapper=dict(optimizer=dict(type=LARS, betas=[1, 2]))))
    assert settings(by_name) == settings(by_type) != {}


def test_a_checkpoint_of_weights_is_no_run(saved, tmp_path):
    file = next(saved.glob('best_*.pth'))
    run = runner(tmp_path, resume=True, load_from=str(file))
    with pytest.raises(CheckpointError, match='holds weights and no state of the optimizer'):
        run.train()


@pytest.mark.parametrize('file', sorted(CONFIGS.glob('*.py'))[::5], ids=lambda file: file.stem)
def test_every_config_is_read_back(file):
    config = Config.fromfile(file)
    assert settings(parse_settings(config.pretty_text)) == settings(config) != {}


def test_keys_with_dots_are_read_back():
    keys = {'bn.bias': dict(decay_mult=0), 'x': dict(lars_exclude=True)}
    config = Config(dict(optim_wrapper=dict(paramwise_cfg=dict(custom_keys=keys))))
    stored = settings(parse_settings(config.pretty_text))
    assert stored['optim_wrapper.paramwise_cfg.custom_keys.bn.bias.decay_mult'] == 0
    assert stored == settings(config)


@pytest.mark.parametrize('text', ['import os', f'model = {[0] * 10**6}'], ids=['code', 'too long'])
def test_a_config_that_cannot_be_read_is_said(text):
    said = []
    checkpoint = dict(meta=dict(epoch=1, iter=2, cfg=text), optimizer={}, message_hub={})
    check_resumable(checkpoint, Config(), 'a.pth', SimpleNamespace(warning=said.append))
    assert 'a.pth holds no readable config' in said[0]


def test_a_checkpoint_keeps_the_number_of_threads(saved):
    info = torch.load(saved / 'epoch_2.pth', weights_only=False)['message_hub']['runtime_info']
    assert info[THREADS] == torch.get_num_threads()


def test_a_best_checkpoint_of_another_run_stays(saved, tmp_path):
    other = tmp_path / 'other'
    shutil.copytree(saved, tmp_path / 'a')
    before = best(tmp_path / 'a')
    assert len(before) == 1
    checkpoint = torch.load(tmp_path / 'a' / 'epoch_2.pth', weights_only=False)
    info = checkpoint['message_hub']['runtime_info']
    info['best_ckpt'] = str(tmp_path / 'a' / next(iter(before)))
    info['best_score'] = -1.0  # so that the first validation is better
    info['keep_ckpt_ids'] = [1, 2, 7]
    torch.save(checkpoint, tmp_path / 'a' / 'epoch_2.pth')
    other.mkdir()
    (other / 'epoch_7.pth').write_text('of an earlier run')
    options = {**VALIDATED, 'train_cfg.max_epochs': 3, 'default_hooks.checkpoint.max_keep_ckpts': 1}
    runner(
        other, validate=True, **options, resume=True, load_from=str(tmp_path / 'a' / 'epoch_2.pth')
    ).train()
    assert best(tmp_path / 'a') == before
    assert len(best(other)) == 1
    assert {'epoch_3.pth', 'epoch_7.pth'} == {path.name for path in other.glob('epoch_*')}


def test_nothing_in_a_checkpoint_is_run(saved, tmp_path):
    """MMEngine runs ``meta['config']`` as Python when it resumes."""
    checkpoint = torch.load(saved / 'epoch_2.pth', weights_only=False)
    checkpoint['meta']['config'] = f'open({str(tmp_path / "written")!r}, "w").close()'
    torch.save(checkpoint, tmp_path / 'hostile.pth')
    runner(tmp_path, resume=True, load_from=str(tmp_path / 'hostile.pth')).train()
    assert not (tmp_path / 'written').exists()


@pytest.mark.parametrize('name', ['../secret.txt', 'notes.txt', 'best_of.txt'])
def test_a_checkpoint_cannot_name_a_file_to_delete(saved, tmp_path, name):
    work_dir = tmp_path / 'run'
    shutil.copytree(saved, work_dir)
    victim = work_dir / name
    victim.write_text('keep me')
    checkpoint = torch.load(work_dir / 'epoch_2.pth', weights_only=False)
    checkpoint['message_hub']['runtime_info'].update(best_ckpt=str(victim), best_score=-1.0)
    torch.save(checkpoint, work_dir / 'epoch_2.pth')
    runner(
        work_dir,
        validate=True,
        **{**VALIDATED, 'train_cfg.max_epochs': 3},
        resume=True,
        load_from=str(work_dir / 'epoch_2.pth'),
    ).train()
    assert victim.read_text() == 'keep me'


def test_the_latest_checkpoint_of_a_folder_that_was_moved(saved, tmp_path):
    shutil.copytree(saved, tmp_path / 'moved')
    assert latest_checkpoint(str(tmp_path / 'moved')) == str(tmp_path / 'moved' / 'epoch_3.pth')
    (tmp_path / 'moved' / 'epoch_3.pth').unlink()
    assert latest_checkpoint(str(tmp_path / 'moved')) == str(saved / 'epoch_3.pth')
    (tmp_path / 'moved' / 'last_checkpoint').write_text('/nowhere/epoch_9.pth')
    with pytest.raises(MissingFileError, match='names /nowhere/epoch_9.pth'):
        latest_checkpoint(str(tmp_path / 'moved'))
    (tmp_path / 'moved' / 'last_checkpoint').write_text('')  # a disk that was full
    with pytest.raises(MissingFileError, match='names nothing, no file that is there'):
        latest_checkpoint(str(tmp_path / 'moved'))
    assert latest_checkpoint(str(tmp_path)) is None


def test_a_checkpoint_without_the_new_state_resumes(saved, tmp_path):
    """As saved before hooks and validations left traces in the message hub."""
    checkpoint = torch.load(saved / 'epoch_2.pth', weights_only=False)
    info = checkpoint['message_hub']
    for key in ('early_stopping', 'iter_of_validation'):
        info['runtime_info'].pop(key, None)
        info['resumed_keys'].pop(key, None)
    torch.save(checkpoint, tmp_path / 'old.pth')
    options = {**VALIDATED, 'train_cfg.max_epochs': 3}
    rest = runner(
        tmp_path / 'rest',
        validate=True,
        **options,
        resume=True,
        load_from=str(tmp_path / 'old.pth'),
    )
    rest.train()
    assert sorted(losses(rest)) == [9, 10, 11, 12]


@pytest.mark.parametrize('resume', [True, 'auto'])
@pytest.mark.parametrize('named', [True, False])
def test_a_validation_before_a_resumed_training_changes_nothing(saved, tmp_path, resume, named):
    shutil.copytree(saved, tmp_path / 'run')
    file = str(tmp_path / 'run' / 'epoch_2.pth')
    (tmp_path / 'run' / 'last_checkpoint').write_text(file)
    if named:
        (tmp_path / 'run' / 'epoch_3.pth').unlink()
    options = {**VALIDATED, 'train_cfg.max_epochs': 3, 'default_hooks.checkpoint.save_best': None}
    options.update(resume=resume, load_from=file if named else None)
    rest = runner(tmp_path / 'run', validate=True, **options)
    rest.val()
    rest.train()
    assert losses(rest) == {step: loss for step, loss in logged(saved).items() if step > 8}
    rest.test()  # of the trained weights, which are not replaced by those of the file
    state = torch.load(file, weights_only=False)['state_dict']
    assert not torch.equal(rest.model.state_dict()['neck.fc0.weight'], state['neck.fc0.weight'])


def test_a_validation_before_a_training_from_weights(saved, tmp_path):
    options = {'train_cfg.max_epochs': 1, 'param_scheduler': [], 'optim_wrapper.optimizer.lr': 0.0}
    run = runner(tmp_path, validate=True, load_from=str(saved / 'epoch_3.pth'), **options)
    run.val()
    run.train()
    state = torch.load(saved / 'epoch_3.pth', weights_only=False)['state_dict']
    for key, value in run.model.named_parameters():
        assert torch.equal(value, state[key])


def test_averages_without_their_hook_are_no_weights_to_go_on_with(tmp_path):
    options = {**EVERY_EPOCH, 'train_cfg.max_epochs': 1, 'param_scheduler': []}
    runner(tmp_path / 'run', custom_hooks=[dict(type='EMAHook')], **options).train()
    options['train_cfg.max_epochs'] = 2
    rest = runner(tmp_path / 'run', custom_hooks=[], resume=True, **options)
    with pytest.raises(UserError, match='this run has no EMAHook: put it back into custom_hooks'):
        rest.train()


PLAIN_LOOP = {
    'train_cfg': dict(_delete_=True, by_epoch=True, max_epochs=1),
    'train_dataloader.sampler': dict(_delete_=True, type='DefaultSampler', shuffle=True),
    'train_dataloader.collate_fn': dict(_delete_=True, type='default_collate'),
    'train_dataloader.dataset.batched': False,
    'param_scheduler': [],
    **EVERY_EPOCH,
}


def test_mmengines_loop_goes_on_and_says_what_differs(tmp_path):
    runner(tmp_path / 'run', **PLAIN_LOOP).train()
    longer = dict(PLAIN_LOOP, train_cfg=dict(_delete_=True, by_epoch=True, max_epochs=2))
    file = str(tmp_path / 'run' / 'epoch_1.pth')
    rest = runner(tmp_path / 'rest', resume=True, load_from=file, **longer)
    rest.train()
    assert sorted(losses(rest)) == [5, 6, 7, 8]
    log = next(Path(rest.log_dir).glob('*.log')).read_text()
    assert "MMEngine's loops do not continue exactly" in log


def test_our_loop_under_mmengines_runner_keeps_its_permutation(tmp_path):
    """MMEngine draws a seed if the config has none, and restores it after the sampler is built."""
    options = {**EVERY_EPOCH, 'randomness': dict(_delete_=True, seed=None), 'param_scheduler': []}
    cfg = runner(tmp_path / 'a', **options).cfg
    cfg.pop('runner_type')
    cfg.train_cfg.max_epochs = 1
    cfg.experiment_name = 'mmengine_a'
    first = build_runner(cfg)
    first.train()
    cfg = cfg.copy()
    cfg.train_cfg.max_epochs = 2
    cfg.update(resume=True, load_from=str(tmp_path / 'a' / 'epoch_1.pth'))
    cfg.experiment_name = 'mmengine_b'
    rest = build_runner(cfg)
    rest.train()
    assert rest.train_dataloader.sampler.seed == first.train_dataloader.sampler.seed


def test_a_work_dir_whose_name_is_no_utf_8(tmp_path):
    """TensorBoard could not write there."""
    with pytest.raises(UserError, match=r'out_\\xe4 is no UTF-8: name another folder'):
        runner(tmp_path / os.fsdecode(b'out_\xe4'))
