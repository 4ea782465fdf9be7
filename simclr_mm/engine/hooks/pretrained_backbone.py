"""Assert that an encoder under evaluation is the one that was pretrained."""

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


@HOOKS.register_module()
class PretrainedBackboneHook(Hook):
    """Train a head on a pretrained encoder, and on no other.

    The encoder comes from ``model.backbone.init_cfg = dict(type='Pretrained',
    checkpoint=PATH, prefix='backbone.')``. MMEngine logs keys that do not fit and
    trains on; here every key has to fit, bit by bit, before the first iteration.

    Args:
        frozen: For linear evaluation: the encoder gets no gradient, stays in eval mode
            and has to be bit-identical after training. False for fine-tuning.
    """

    def __init__(self, frozen: bool = True) -> None:
        self.frozen = frozen
        self._before: dict[str, Tensor] = {}

    def before_run(self, runner) -> None:
        if not isinstance(runner._train_loop, BaseLoop):  # a run that only tests
            return
        init_cfg = _encoder(runner)
        install_safe_loading()
        path = init_cfg['checkpoint']
        backbone_state(read_checkpoint(path), init_cfg.get('prefix') or '', path)
        if self.frozen:
            self._freeze(runner)

    def before_train(self, runner) -> None:
        if runner.iter == 0 or self.frozen:  # a resumed fine-tuning has moved on
            _check_loaded(runner)
        if self.frozen:
            state = _backbone(runner).state_dict()
            self._before = {key: value.detach().clone() for key, value in state.items()}

    def before_train_iter(self, runner, *args, **kwargs) -> None:
        if self.frozen:
            _backbone(runner).eval()

    def after_train(self, runner) -> None:
        if self.frozen:
            changed = _differing(_backbone(runner).state_dict(), self._before)
            if changed:
                raise RuntimeError(
                    f'the frozen backbone changed during training: {changed}; keep it '
                    'out of hooks and optimizers that write weights'
                )
            self._before = {}

    def _freeze(self, runner) -> None:
        """Take the gradients away before anything counts on them.

        DistributedDataParallel notes at construction which parameters will have one, so
        a model that it wraps is wrapped again.
        """
        trained = [p for p in _backbone(runner).parameters() if p.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        if trained and is_model_wrapper(runner.model):
            runner.model = runner.wrap_model(
                runner.cfg.get('model_wrapper_cfg'), runner.model.module
            )


def _backbone(runner) -> nn.Module:
    model = runner.model
    return (model.module if is_model_wrapper(model) else model).backbone


def _encoder(runner) -> Mapping:
    """The init_cfg that names the encoder.

    Raises:
        ValueError: there is none.
    """
    init_cfgs = getattr(_backbone(runner), 'init_cfg', None) or []
    if isinstance(init_cfgs, Mapping):
        init_cfgs = [init_cfgs]
    for init_cfg in init_cfgs:
        is_file = type_name(init_cfg) in ('Pretrained', 'PretrainedInit')
        if is_file and init_cfg.get('checkpoint'):
            return init_cfg
    raise UserError(
        'no encoder: pass --pretrained PATH (or --cfg-options '
        'model.backbone.init_cfg.checkpoint=PATH)'
    )


def _check_loaded(runner) -> None:
    """Compare the backbone with the file.

    Raises:
        CheckpointError: keys are missing, left over, of another shape, or not loaded.
    """
    init_cfg = _encoder(runner)
    path = init_cfg['checkpoint']
    checkpoint = read_checkpoint(path)
    wanted = backbone_state(checkpoint, init_cfg.get('prefix') or '', path)
    state = _backbone(runner).state_dict()
    problems = state_problems(state, wanted) or _differing(state, wanted)
    if problems:
        raise CheckpointError(
            f'the backbone is not the encoder in {path}: {problems}; check that '
            'model.backbone is what was pretrained, that init_cfg.prefix is what its '
            "keys begin with ('backbone.'), that its type is the text 'Pretrained', without "
            'which ResNets make some weights zero, and that nothing else overwrites it'
        )
    if is_main_process():
        runner.logger.info(
            f'The backbone is the encoder in {path}, {len(state)} of {len(state)} keys bit by bit.'
        )


def _differing(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    keys = [key for key, value in state.items() if not _same_bits(value, wanted[key])]
    return f'{len(keys)} with other values: {", ".join(keys)}' if keys else ''


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether tensors of one shape hold the same bytes in the dtype of the first."""
    a, b = (x.detach().to('cpu', a.dtype).reshape(-1).view(torch.uint8) for x in (a, b))
    return torch.equal(a, b)
