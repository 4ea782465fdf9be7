"""Save checkpoints so that a kill at any time leaves a loadable one."""

import re
from collections import deque
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from simclr_mm.errors import UserError
from simclr_mm.files import storage
from simclr_mm.files.atomic import remove_stale
from simclr_mm.registry import HOOKS

from ..ranks import on_first_rank
from ..resume import POINTER
from .checkpoint_storage import LOCAL, AtomicLocalBackend, StorageBackend, check_writable, serve

_BETWEEN = 'ckpt_between'  # key in the message hub


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's CheckpointHook, safe against a kill while it saves.

    Args:
        **kwargs: As for MMEngine's hook.

    Differs: a checkpoint and the file ``last_checkpoint`` replace the old ones in one step;
    MMEngine writes in place. Checkpoints beyond ``max_keep_ckpts`` and ``save_best`` are removed
    after the new one is complete; MMEngine removes them first. Only files of this run in its own
    folder are removed; MMEngine removes the files that a resumed checkpoint names.

    ``out_dir`` may be any URL of fsspec, such as ``s3://BUCKET/FOLDER``. Checkpoints and a
    ``last_checkpoint`` of their own go there, into a folder named as the work dir is; logs stay in
    the work dir. MMEngine has its own servers instead, which ``backend_args`` still names.
    """

    out_dir: str
    _saved: int | None = None  # iterations done at the last checkpoint
    _store = ''  # folder of the run on a storage

    def _init_rule(self, rules: list[str | None], key_indicators: list[str]) -> None:
        try:
            super()._init_rule(rules, key_indicators)
        except (KeyError, ValueError) as error:
            raise UserError(
                f'default_hooks.checkpoint.save_best={key_indicators}, rule={rules}: write '
                "default_hooks.checkpoint.rule='greater' or 'less', as more or less is better"
            ) from error

    def store(self, work_dir: str) -> str:
        """The folder for a run's checkpoints on a storage, '' if they go elsewhere."""
        out_dir = str(self.out_dir or '')
        served = self.backend_args is not None or self.file_client_args is not None
        if served or not storage.is_url(out_dir) or out_dir.startswith('file://'):
            return ''
        return StorageBackend().join_path(out_dir, Path(work_dir).name)

    def before_train(self, runner: Runner) -> None:
        self.out_dir = str(self.out_dir or runner.work_dir)
        if self.out_dir.startswith('file://'):
            self.out_dir = unquote(urlsplit(self.out_dir).path)
        self._store = self.store(runner.work_dir)
        if self._store:
            serve(self.out_dir)
            on_first_rank(lambda: check_writable(self._store))
        local = not storage.is_url(f'{self.out_dir} {runner.work_dir}')
        if local and self.backend_args is None and self.file_client_args is None:
            self.backend_args: dict | None = dict(backend=LOCAL)
        info = runner.message_hub.runtime_info
        kept = info.pop('keep_ckpt_ids', [])  # else MMEngine removes some without a check
        super().before_train(runner)
        self._forget_other_runs(runner, kept)
        if is_main_process():
            for folder in {runner.work_dir, self.out_dir if local else runner.work_dir}:
                for partial in remove_stale(folder):
                    runner.logger.info(f'Removed {partial}, left by a killed run.')
        if getattr(runner, 'saves_start', False):
            self.save_between(runner, 0, 0)

    def _forget_other_runs(self, runner: Runner, kept: list[int]) -> None:
        """Keep only files of this run and folder among those that may be removed.

        A resumed checkpoint names files. They belong to this run if the checkpoint itself lies
        in this run's folder. The folder may have been moved since.
        """
        own = _is_in(getattr(runner, '_resumed_from', runner._load_from), self.out_dir)
        if self.max_keep_ckpts > 0:
            steps = [step for step in kept if own and isinstance(step, int)]
            self.keep_ckpt_ids = deque(steps)
            while len(self.keep_ckpt_ids) > self.max_keep_ckpts:
                self._remove_step(self.keep_ckpt_ids.popleft())
        if not own:
            runner.message_hub.runtime_info.pop(_BETWEEN, None)
        paths = self._best_paths()
        for key, path in paths.items():
            if path is None:
                continue
            name = Path(path).name
            if own and self._is_best(name):
                paths[key] = self.file_backend.join_path(self.out_dir, name)
            else:
                runner.logger.info(f'{path}, the best so far, belongs to another run and stays.')
                paths[key] = None
            runner.message_hub.update_info(f'best_ckpt_{key}' if key else 'best_ckpt', paths[key])
        self._set_best_paths(paths)

    def _is_best(self, name: str) -> bool:
        """Whether ``save_best`` of this hook writes files of this name."""
        before, _, after = self.filename_tmpl.partition('{}')
        return bool(re.fullmatch(f'best_.+_{re.escape(before)}[0-9]+{re.escape(after)}', name))

    def save_between(self, runner: Runner, epoch: int, iteration: int) -> None:
        """Save now, unless the last checkpoint is of this moment.

        Beside checkpoints of epochs it is ``iter_K.pth``, and the next of those replaces it.

        Args:
            runner: The run, between two steps.
            epoch: Epochs done.
            iteration: Iterations done.
        """
        if self._saved == iteration:
            return
        meta = dict(epoch=epoch, iter=iteration)
        if not self.by_epoch:
            self._save_checkpoint_with_step(runner, iteration, meta)
            return
        before = self._between(runner)
        name = f'iter_{iteration}.pth'
        runner.message_hub.update_info(_BETWEEN, name)
        self._save(runner, name, meta)
        if before not in (None, self.last_ckpt):
            self._remove(before)

    def _between(self, runner: Runner) -> str | None:
        """The checkpoint of :meth:`save_between`, if there is one of this run."""
        name = runner.message_hub.runtime_info.get(_BETWEEN)
        if not re.fullmatch('iter_[0-9]+[.]pth', str(name)):  # as a checkpoint may say anything
            return None
        return self.file_backend.join_path(self.out_dir, name)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        outdated = None
        if self.max_keep_ckpts > 0:
            if step not in self.keep_ckpt_ids:
                if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                    outdated = self.keep_ckpt_ids.popleft()
                self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        between = self._between(runner)
        runner.message_hub.runtime_info.pop(_BETWEEN, None)
        self._save(runner, self.filename_tmpl.format(step), meta)
        if outdated is not None:
            self._remove_step(outdated)
        if between is not None:
            self._remove(between)

    def _save(self, runner: Runner, name: str, meta: dict) -> None:
        self._saved = meta.get('iter', runner.iter if self.by_epoch else runner.iter + 1)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        if self._store:
            self.file_backend.put(self.last_ckpt.encode(), f'{self._store}/{POINTER}')
        AtomicLocalBackend().put(self.last_ckpt.encode(), Path(runner.work_dir, POINTER))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:
            return
        unknown = set(self.key_indicators) - {*metrics, 'auto'}
        if unknown:
            raise UserError(
                f'default_hooks.checkpoint.save_best={", ".join(sorted(unknown))}: the '
                f'validation gives {", ".join(metrics)}'
            )
        before = self._best_paths()
        self._set_best_paths(dict.fromkeys(before))  # else MMEngine removes them early
        last = self.last_ckpt
        if getattr(runner.train_loop, 'makes_up_validation', False):
            self.last_ckpt = None  # else MMEngine saves it again with the new best score
        super()._save_best_checkpoint(runner, metrics)
        self.last_ckpt = last
        improved = {key: path for key, path in self._best_paths().items() if path}
        self._set_best_paths({**before, **improved})
        for key in improved:
            outdated = before.get(key)
            if outdated and outdated != improved[key]:
                self._remove(outdated)

    def _best_paths(self) -> dict[str, str | None]:
        """Path of the best checkpoint for each metric. '' stands for a single metric."""
        if hasattr(self, 'best_ckpt_path'):
            return {'': self.best_ckpt_path}
        return dict(getattr(self, 'best_ckpt_path_dict', {}))

    def _set_best_paths(self, paths: dict[str, str | None]) -> None:
        if hasattr(self, 'best_ckpt_path'):
            self.best_ckpt_path = paths['']
        elif paths:
            self.best_ckpt_path_dict = paths

    def _remove_step(self, step: int) -> None:
        self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step)))

    def _remove(self, path: str) -> None:
        if is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)


def _is_in(source: str | None, folder: str) -> bool:
    """Whether a checkpoint lies in a folder. None is the newest of the work dir."""
    if source is None or storage.is_url(source):
        return source is None or source.rpartition('/')[0] == folder
    return Path(source).resolve().parent == Path(folder).resolve()
