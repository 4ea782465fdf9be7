import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from simclr_mm.errors import UserError
from simclr_mm.registry import OPTIMIZERS

_NUMBERS = ('lr', 'momentum', 'weight_decay', 'eta')
# What each setting of a group may be, in words and as a test.
_ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = dict(
    lr=('a finite number >= 0', lambda x: _is_number(x) and x >= 0),
    momentum=('a number in [0, 1)', lambda x: _is_number(x) and 0 <= x < 1),
    weight_decay=('a finite number >= 0', lambda x: _is_number(x) and x >= 0),
    eta=('a finite number > 0', lambda x: _is_number(x) and x > 0),
    trust_denominator=("'sum' or 'parts'", lambda x: x in ('sum', 'parts', None)),
)
# Numbers in a batch on a CPU: 1 MB of float32; 2^14 to 2^20 differ by a tenth.
_CPU_BATCH = 2**18


@OPTIMIZERS.register_module()
class LARS(Optimizer):
    """SGD with momentum and a step scaled to the norm of each weight tensor.

    With update u = g + weight_decay * w, each parameter w with gradient g takes
    v = momentum * v + lr * trust * u and w = w - v. Nothing is read from the device.

    Source: You et al., arXiv:1708.03888, Algorithm 1, as in SimCLR's reference code
    (lars_optimizer.py): classic momentum with the rate inside v, which differs from
    torch.optim.SGD while the rate changes.

    Args:
        params: Parameters or groups of them, which may set every argument below.
        lr: Base learning rate, >= 0. The paper: 0.3 * batch / 256 (Sec. 2.2).
        momentum: In [0, 1). 0.9 as in the reference code.
        weight_decay: >= 0. The paper: 1e-6 (Sec. 2.2).
        eta: Trust coefficient, > 0. 0.001 as in the reference code.
        trust_denominator: 'sum', as in the reference code: trust = eta * |w| / |u|. 'parts',
            as in mmpretrain, lightly and solo-learn:
            eta * |w| / (|g| + weight_decay * |w| + 1e-8). If a norm is 0, trust
            is 1. A group may also set None: trust 1 and no decay.
        include_1d: Also adapt and decay parameters of at most one dimension (norms,
            biases). By default these take trust 1 and no decay, as in the reference
            code, which finds them by name. A group may set mmpretrain's
            ``lars_exclude=True``: trust 1, with the group's decay.

    Raises:
        UserError: An argument is out of range.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 0.001,
        trust_denominator: str = 'sum',
        include_1d: bool = False,
    ) -> None:
        if trust_denominator is None:
            raise UserError(
                "trust_denominator must be 'sum' or 'parts', got None: set "
                'optim_wrapper.optimizer.trust_denominator; only a group may have None'
            )
        numbers = dict(zip(_NUMBERS, (lr, momentum, weight_decay, eta)))
        forms = dict(trust_denominator=trust_denominator, include_1d=include_1d)
        super().__init__(params, {**numbers, **forms})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)  # which completes it with the defaults
        for name, (expected, valid) in _ALLOWED.items():
            value = self.param_groups[-1][name]
            if not valid(value):
                place = 'optimizer' if value is self.defaults[name] else 'paramwise_cfg'
                raise UserError(
                    f'{name} must be {expected}, got {value!r}: set optim_wrapper.{place}.{name}'
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for settings, params in self._alike():
            for batch in _in_cache(params):
                for p in batch:
                    if 'momentum_buffer' not in self.state[p]:
                        self.state[p]['momentum_buffer'] = torch.zeros_like(p)
                _update(batch, [self.state[p]['momentum_buffer'] for p in batch], **settings)
        return loss

    def _alike(self) -> list[tuple[dict, list[Tensor]]]:
        """Parameters with the same update, over all groups; paramwise_cfg makes many groups."""
        alike: dict[tuple, list[Tensor]] = defaultdict(list)
        for group in self.param_groups:
            numbers = tuple(group[key] for key in _NUMBERS)
            excluded = group.get('lars_exclude', False)
            for p in group['params']:
                if p.grad is None:
                    continue
                form = group['trust_denominator'] if group['include_1d'] or p.ndim > 1 else None
                if form is not None and excluded:
                    form = 'one'
                key = (p.device, p.dtype, form, *numbers)
                alike[key].append(p)
        return [(dict(zip(('form', *_NUMBERS), key[2:])), params) for key, params in alike.items()]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _in_cache(params: list[Tensor]) -> list[list[Tensor]]:
    """Batches of parameters that are updated together."""
    if params[0].device.type != 'cpu':
        return [params]  # few kernel launches
    # An update goes over each tensor several times: outside the cache this takes twice the time.
    batches: list[list[Tensor]] = []
    free = 0
    for p in params:
        if not batches or p.numel() > free:
            batches.append([])
            free = _CPU_BATCH
        batches[-1].append(p)
        free -= p.numel()
    return batches


def _update(
    params: list[Tensor],
    velocities: list[Tensor],
    form: str | None,
    lr: float,
    momentum: float,
    weight_decay: float,
    eta: float,
) -> None:
    """One step of k parameters. ``form`` None: trust 1 and no decay; 'one': trust 1."""
    updates = _gradients(params)
    if weight_decay and form is not None:
        updates = list(torch._foreach_add(updates, params, alpha=weight_decay))
    rates = None
    if form not in (None, 'one'):
        rates = lr * _trust(params, updates, form, weight_decay, eta)  # (k)
    torch._foreach_mul_(velocities, momentum)
    if rates is None:
        torch._foreach_add_(velocities, updates, alpha=lr)
    else:
        torch._foreach_addcmul_(velocities, updates, rates.unbind())
    torch._foreach_sub_(params, velocities)


def _gradients(params: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in params if p.grad is not None]  # each has one


def _trust(
    params: list[Tensor], updates: list[Tensor], form: str, weight_decay: float, eta: float
) -> Tensor:
    """The trust ratios of k parameters, (k)."""
    weights = torch.stack(torch._foreach_norm(params))  # (k), as all norms below
    if form == 'sum':
        norms = denominators = torch.stack(torch._foreach_norm(updates))
    else:
        norms = torch.stack(torch._foreach_norm(_gradients(params)))
        denominators = norms + weight_decay * weights + 1e-8  # as in mmpretrain
    numerators = eta * weights
    usable = (numerators > 0) & (norms > 0)
    return torch.where(usable, numerators / denominators, 1.0)
