"""Skip the update of a step that is not finite, and stop the run with a report."""

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from simclr_mm.registry import HOOKS

from ..ranks import plain_model
from .keep_where import flat_copy, keep_where
from .log_interval import log_interval
from .non_finite_report import Step, first_bad, image_names, range_of, stop

# fairseq's --min-loss-scale. At this scale the gradient itself is not finite.
_MIN_LOSS_SCALE = 1e-4


@HOOKS.register_module()
class NonFiniteGuardHook(Hook):
    """Skip steps whose loss or gradient is not finite, then stop.

    A bad step has a NaN or an infinity in its loss or gradients on any rank. On all ranks it
    changes neither parameters nor momentum nor BN's running statistics. The run stops at the
    next log line or the end of the epoch, because only there the device is read, with a
    FloatingPointError that describes the first bad step. ``non_finite_step_K.pth`` in the
    checkpoints' folder holds a model made by good steps only. A JSON file of the same name
    lists all images of the bad batch.

    On a CPU the optimizer does not get the gradients of a bad step. On other devices
    parameters and optimizer state are copied before each step, and a flag on the device
    chooses between copy and result: 0.2 GB and 2 GB of traffic a step for ResNet-50.

    With a loss scaler (fp16), steps skipped for their gradients are no error. A loss that is
    not finite is an error, and so is a scale below 1e-4.

    Differs: on a GPU, Adam without ``fused=True`` counts its steps on the host, so it also
    counts skipped steps.
    """

    # After logger (60) and scheduler (70), so that its checkpoint can be resumed. Before
    # CheckpointHook (90).
    priority = 80

    def before_train(self, runner: Runner) -> None:
        self._model = plain_model(runner)
        optimizer = runner.optim_wrapper.optimizer
        self._params = _parameters(optimizer)
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._norm_buffers = _norm_buffers(self._model)
        self._good_norms = flat_copy(self._norm_buffers)
        self._interval = log_interval(runner)
        self._device = self._params[0].device
        self._on_cpu = _is_cpu(self._device)
        self._bad_loss = torch.zeros((), dtype=torch.bool, device=self._device)
        self._bad = torch.zeros_like(self._bad_loss)  # this step, once it is decided
        self._decided = False
        self._images: list[str] = []  # of this step
        self._steps: list[Step] = []  # since the last reading
        self._handles = [
            self._model.register_forward_hook(self._see_loss),
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def after_train(self, runner: Runner) -> None:
        for handle in self._handles:
            handle.remove()

    def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        self._rate = runner.optim_wrapper.param_groups[0]['lr']

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        self._images += image_names(data_batch)
        if runner.optim_wrapper.should_update():  # not while gradients accumulate
            self._end_step(runner)
        if self.every_n_inner_iters(batch_idx, self._interval):
            self._read(runner, by_epoch=False)

    def after_train_epoch(self, runner: Runner) -> None:
        self._read(runner, by_epoch=True)

    def _see_loss(self, model: nn.Module, args: tuple, outputs: object) -> None:
        if not model.training or not isinstance(outputs, dict):
            return
        for key, value in outputs.items():
            if 'loss' in key:  # as in MMEngine's parse_losses
                for loss in value if isinstance(value, list) else [value]:
                    self._bad_loss = self._bad_loss | ~loss.detach().isfinite().all()

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        bad = self._bad_loss
        if self._scaler is None:
            bad = bad | ~self._finite_gradients()
        self._decide(bad)
        if not self._on_cpu:
            self._updated = _updated(optimizer)
            self._before = flat_copy(self._updated)
        elif self._bad:
            for p in self._params:
                p.grad = None  # optimizers skip such parameters and their state

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        if self._on_cpu:
            return
        keep_where(self._bad, self._before, self._updated)
        known = {id(tensor) for tensor in self._updated}
        for tensor in _updated(optimizer):
            if id(tensor) not in known:  # state that the first step created
                tensor.masked_fill_(self._bad, 0)
        del self._updated, self._before

    def _finite_gradients(self) -> Tensor:
        """Whether all gradients are finite, a bool on the device."""
        grads = [p.grad for p in self._params if p.grad is not None]
        # On a CPU the Euclidean norm takes a tenth of the time, but it may overflow for
        # large finite gradients.
        if self._on_cpu and (norm := get_total_norm(grads)).isfinite():
            return norm.isfinite()
        return get_total_norm(grads, float('inf')).isfinite()

    def _decide(self, bad: Tensor) -> None:
        """Agree with all ranks whether this step is bad, and restore BN if it is."""
        flag = bad.float()
        dist.all_reduce(flag, op='max')
        self._bad, self._decided = flag > 0, True
        keep_where(self._bad, self._good_norms, self._norm_buffers)
        self._good_norms = flat_copy(self._norm_buffers)

    def _end_step(self, runner: Runner) -> None:
        if not self._decided:  # the loss scaler has skipped the step
            self._decide(self._bad_loss)
        bad = self._bad
        if self._scaler is not None:
            bad = bad | (self._scaler._scale < _MIN_LOSS_SCALE)
        projections = range_of(getattr(self._model, 'projections', None))
        self._steps.append(Step(runner.iter + 1, bad, self._rate, self._images, projections))
        self._images, self._decided = [], False
        self._bad_loss = torch.zeros_like(self._bad_loss)

    def _read(self, runner: Runner, by_epoch: bool) -> None:
        """Read the device, once in an interval."""
        report, self._steps = first_bad(self._steps), []
        if report is not None:
            stop(runner, report, by_epoch)


def _is_cpu(device: torch.device) -> bool:
    return device.type == 'cpu'


def _norm_buffers(model: nn.Module) -> list[Tensor]:
    norms = [module for module in model.modules() if isinstance(module, _NormBase)]
    return [buffer for norm in norms for buffer in norm.buffers()]


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group['params']]


def _updated(optimizer: Optimizer) -> list[Tensor]:
    """The tensors on the device that a step changes: parameters and their state."""
    params = _parameters(optimizer)
    state = [
        value
        for p, values in optimizer.state.items()
        for value in values.values()
        if isinstance(value, Tensor) and value.device == p.device
    ]
    return params + state
