"""Load the kept part of the projection head, and check that the encoder is the pretrained one."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner.base_loop import BaseLoop
from torch import Tensor, nn

from simclr_mm.checkpoints import (
    backbone_state,
    install_safe_loading,
    meta_of,
    model_state,
    read_checkpoint,
    state_problems,
)
from simclr_mm.checkpoints.stored_config import parse_settings
from simclr_mm.errors import CheckpointError, UserError, listed
from simclr_mm.models import ProjectionNeck, SimCLR
from simclr_mm.registry import HOOKS, type_name

from ..ranks import plain_model

_NECK = 'neck.'


@HOOKS.register_module()
class PretrainedBackboneHook(Hook):
    """Train a head on a pretrained encoder, and check that it is this encoder.

    The encoder comes from ``model.backbone.init_cfg = dict(type='Pretrained',
    checkpoint=PATH, prefix='backbone.')``. MMEngine only logs keys that do not fit. Here
    every key has to fit, bit by bit, before the first iteration.

    If the model's neck is a ``ProjectionNeck``, the encoder has it too: the hook loads
    its layers, with their BN statistics, from the file's ``neck.``. Of a neck with ``until`` it
    names the layers that it leaves out.

    Args:
        frozen: For linear evaluation: the encoder gets no gradient, stays in eval mode
            and has to be bit-identical after training. False for fine-tuning.
        strict: False allows keys that only the model or only the file has, with a warning.

    Raises:
        UserError: No encoder is named.
        CheckpointError: The backbone is not the encoder in the file, or the file lacks layers
            of the neck.
        RuntimeError: The frozen encoder changed.
    """

    def __init__(self, frozen: bool = True, strict: bool = True) -> None:
        if frozen and not strict:
            raise UserError('PretrainedBackboneHook: strict=False is for frozen=False')
        self.frozen = frozen
        self.strict = strict

    def before_run(self, runner) -> None:
        if not isinstance(runner._train_loop, BaseLoop):  # the run only tests
            return
        install_safe_loading()
        init_cfg = _init_cfg(runner)
        self._path = init_cfg['checkpoint']
        checkpoint = read_checkpoint(self._path)
        prefix = init_cfg.get('prefix') or ''
        if prefix and not prefix.endswith('.'):  # as MMEngine completes it
            prefix += '.'
        self._encoder = backbone_state(checkpoint, prefix, self._path)
        neck = _projection(runner)
        if neck is not None:
            state = model_state(checkpoint, self._path)
            self._layers = _kept_layers(state, prefix.removesuffix('backbone.') + _NECK, neck)
            problems = state_problems(neck.state_dict(), self._layers)
            if problems:
                raise CheckpointError(
                    f'{self._path} does not hold the layers of model.neck: {problems}; take a '
                    'checkpoint with its projection head, and the norm_cfg and widths of that '
                    'head, or set model.neck.until=0 for the features before it'
                )
            self._encoder.update({_NECK + key: value for key, value in self._layers.items()})
        _compare_pixels(runner, checkpoint, self._path)
        if self.frozen:
            self._freeze(runner)

    def before_train(self, runner) -> None:
        if runner.iter > 0 and not self.frozen:
            return  # a resumed fine-tuning has changed it
        neck = _projection(runner)
        if neck is not None and runner.iter == 0:
            neck.load_state_dict(self._layers)
        state = _state(runner)
        encoder = self._encoder
        common = sorted(state.keys() & encoder.keys())
        if not self.strict and common:
            others = sorted(state.keys() ^ encoder.keys())
            if others:
                where = f'in the backbone or in {self._path} alone'
                runner.logger.warning(f'{len(others)} keys are {where}: {listed(others, 20)}.')
            state, encoder = ({key: part[key] for key in common} for part in (state, encoder))
        problems = state_problems(state, encoder) or _differing(state, encoder)
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
            for part in _parts(runner).values():
                part.eval()

    def after_train(self, runner) -> None:
        state = _state(runner)
        changed = _differing(state, self._encoder) if self.frozen else ''
        if changed:
            raise RuntimeError(
                f'the frozen encoder changed during training: {changed}; keep it '
                'out of hooks and optimizers that write weights'
            )

    def _freeze(self, runner) -> None:
        parts = _parts(runner).values()
        trained = [p for part in parts for p in part.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        # DistributedDataParallel decides at construction which parameters get a gradient.
        if trained and is_model_wrapper(runner.model):
            wrapper = runner.cfg.get('model_wrapper_cfg')
            runner.model = runner.wrap_model(wrapper, runner.model.module)


def _projection(runner) -> ProjectionNeck | None:
    """The layers of a projection head in a classifier. SimCLR trains a head of its own."""
    model = plain_model(runner)
    neck = getattr(model, 'neck', None)
    return neck if isinstance(neck, ProjectionNeck) and not isinstance(model, SimCLR) else None


def _parts(runner) -> dict[str, nn.Module]:
    """The encoder's modules, by what stands before their keys here."""
    parts = {'': plain_model(runner).get_submodule('backbone')}
    neck = _projection(runner)
    return parts if neck is None else {**parts, _NECK: neck}


def _state(runner) -> dict[str, Tensor]:
    state = {}
    for prefix, part in _parts(runner).items():
        state.update({prefix + key: value for key, value in part.state_dict().items()})
    return state


def _kept_layers(
    state: Mapping[str, Tensor], prefix: str, neck: ProjectionNeck
) -> dict[str, Tensor]:
    """The head's tensors in a checkpoint, without those of layers behind the neck's last one."""
    head = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    later = [] if neck.whole else [key for key in head if _layer(key) >= neck.num_layers]
    if later and is_main_process():
        print_log(
            f'Left out {len(later)} keys of the projection head, behind its layer '
            f'{neck.num_layers}: {listed((prefix + key for key in later), 20)}.',
            logger='current',
        )
    return {key: value for key, value in head.items() if key not in later}


def _layer(key: str) -> int:
    """The number of ``fc2.weight`` or ``bn2.bias``; -1 for other keys."""
    match = re.match(r'(?:fc|bn)(\d+)\.', key)
    return int(match[1]) if match else -1


def _init_cfg(runner) -> Mapping:
    """The init_cfg that names the encoder."""
    init_cfgs = getattr(plain_model(runner).get_submodule('backbone'), 'init_cfg', None) or []
    for init_cfg in [init_cfgs] if isinstance(init_cfgs, Mapping) else init_cfgs:
        is_file = type_name(init_cfg) in ('Pretrained', 'PretrainedInit')
        if is_file and init_cfg.get('checkpoint'):
            return init_cfg
    raise UserError(
        'no encoder: pass --pretrained PATH (or --cfg-options '
        'model.backbone.init_cfg.checkpoint=PATH)'
    )


def _compare_pixels(runner, checkpoint: Mapping, path: str) -> None:
    """Warn if the config normalises pixels otherwise than the encoder was trained."""
    place, found = _preprocessor(runner.cfg)
    wanted = _trained_with(meta_of(checkpoint))
    for key in ('mean', 'std'):  # the order of colours depends on the dataset, too
        if key in wanted and wanted[key] != found.get(key):
            value = str(wanted[key]).replace(' ', '')
            runner.logger.warning(
                f'{path} was trained with {place}.{key}={wanted[key]}, this config has '
                f'{found.get(key)}: give the encoder the pixels that it knows, as with '
                f'--cfg-options "{place}.{key}={value}".'
            )


def _trained_with(meta: Mapping) -> dict[str, Any]:
    """Settings of the preprocessor that an encoder knows, as far as its file says them."""
    if isinstance(meta.get('normalise'), Mapping):  # of simclr-mm convert
        return {key: list(map(float, value)) for key, value in meta['normalise'].items()}
    try:
        return _preprocessor(parse_settings(meta['cfg']))[1]
    except Exception:  # the text may be anything, or missing
        return {}


def _preprocessor(settings: Mapping) -> tuple[str, dict[str, Any]]:
    """Place and settings of the preprocessor in use, numbers as floats."""
    of_model = (settings.get('model') or {}).get('data_preprocessor')
    place = 'model.data_preprocessor' if of_model else 'data_preprocessor'
    found = of_model or settings.get('data_preprocessor') or {}
    return place, {
        key: list(map(float, found[key])) for key in ('mean', 'std') if found.get(key) is not None
    }


def _differing(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    keys = [key for key, value in state.items() if not _same_bits(value, wanted[key])]
    return f'{len(keys)} with other values: {", ".join(keys)}' if keys else ''


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether tensors of one shape have the same bytes in the dtype of the first."""
    a, b = (x.detach().to('cpu', a.dtype).reshape(-1).view(torch.uint8) for x in (a, b))
    return torch.equal(a, b)
