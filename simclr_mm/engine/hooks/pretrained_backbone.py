"""Check that the evaluated encoder is the pretrained one."""

from collections.abc import Mapping

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner.base_loop import BaseLoop
from torch import Tensor, nn

from simclr_mm.checkpoints import (
    backbone_state,
    install_safe_loading,
    read_checkpoint,
    state_problems,
)
from simclr_mm.errors import CheckpointError, UserError
from simclr_mm.registry import HOOKS, type_name

from ..loops import plain_model


@HOOKS.register_module()
class PretrainedBackboneHook(Hook):
    """Train a head on a pretrained encoder, and check that it is this encoder.

    The encoder comes from ``model.backbone.init_cfg = dict(type='Pretrained',
    checkpoint=PATH, prefix='backbone.')``. MMEngine only logs keys that do not fit. Here
    every key has to fit, bit by bit, before the first iteration.

    Args:
        frozen: For linear evaluation: the encoder gets no gradient, stays in eval mode
            and has to be bit-identical after training. False for fine-tuning.

    Raises:
        UserError: No encoder is named.
        CheckpointError: The backbone is not the encoder in the file.
        RuntimeError: The frozen backbone changed.
    """

    def __init__(self, frozen: bool = True) -> None:
        self.frozen = frozen

    def before_run(self, runner) -> None:
        if not isinstance(runner._train_loop, BaseLoop):  # the run only tests
            return
        install_safe_loading()
        init_cfg = _init_cfg(runner)
        self._path = init_cfg['checkpoint']
        checkpoint = read_checkpoint(self._path)
        self._encoder = backbone_state(checkpoint, init_cfg.get('prefix') or '', self._path)
        if self.frozen:
            self._freeze(runner)

    def before_train(self, runner) -> None:
        if runner.iter > 0 and not self.frozen:
            return  # a resumed fine-tuning has changed it
        state = _backbone(runner).state_dict()
        problems = state_problems(state, self._encoder) or _differing(state, self._encoder)
        if problems:
            raise CheckpointError(
                f'the backbone is not the encoder in {self._path}: {problems}; check that '
                'model.backbone is the pretrained one, that init_cfg.prefix is the beginning of '
                "its keys ('backbone.'), that init_cfg.type is the text 'Pretrained' (otherwise "
                'ResNets set some weights to zero), and that nothing else overwrites it'
            )
        if is_main_process():
            count = f'{len(state)} of {len(state)}'
            runner.logger.info(
                f'The backbone is the encoder in {self._path}, {count} keys bit by bit.'
            )

    def before_train_iter(self, runner, *args, **kwargs) -> None:
        if self.frozen:
            _backbone(runner).eval()

    def after_train(self, runner) -> None:
        state = _backbone(runner).state_dict()
        changed = _differing(state, self._encoder) if self.frozen else ''
        if changed:
            raise RuntimeError(
                f'the frozen backbone changed during training: {changed}; keep it '
                'out of hooks and optimizers that write weights'
            )

    def _freeze(self, runner) -> None:
        trained = [p for p in _backbone(runner).parameters() if p.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        # DistributedDataParallel decides at construction which parameters get a gradient.
        if trained and is_model_wrapper(runner.model):
            wrapper = runner.cfg.get('model_wrapper_cfg')
            runner.model = runner.wrap_model(wrapper, runner.model.module)


def _backbone(runner) -> nn.Module:
    return plain_model(runner).get_submodule('backbone')


def _init_cfg(runner) -> Mapping:
    """The init_cfg that names the encoder."""
    init_cfgs = getattr(_backbone(runner), 'init_cfg', None) or []
    for init_cfg in [init_cfgs] if isinstance(init_cfgs, Mapping) else init_cfgs:
        is_file = type_name(init_cfg) in ('Pretrained', 'PretrainedInit')
        if is_file and init_cfg.get('checkpoint'):
            return init_cfg
    raise UserError(
        'no encoder: pass --pretrained PATH (or --cfg-options '
        'model.backbone.init_cfg.checkpoint=PATH)'
    )


def _differing(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    keys = [key for key, value in state.items() if not _same_bits(value, wanted[key])]
    return f'{len(keys)} with other values: {", ".join(keys)}' if keys else ''


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether tensors of one shape have the same bytes in the dtype of the first."""
    a, b = (x.detach().to('cpu', a.dtype).reshape(-1).view(torch.uint8) for x in (a, b))
    return torch.equal(a, b)
