from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from simclr_mm.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class LARS(Optimizer):
    """SGD with momentum whose step is scaled to the norm of each weight tensor.

    With update u = g + weight_decay * w, each parameter w with gradient g takes
    v = momentum * v + lr * trust * u and w = w - v. Nothing is read back from the
    device, and all parameters share each kernel launch that can be shared.

    Source: You et al., arXiv:1708.03888, Algorithm 1, as in SimCLR's reference code
    (lars_optimizer.py): classic momentum, that is with the rate inside v, which
    differs from torch.optim.SGD while the rate changes.

    Args:
        params: Parameters or groups of them. Groups may set every argument below, so
            mmengine's paramwise_cfg works; it is not needed for norms and biases.
        lr: Base learning rate, >= 0. The paper: 0.3 * batch / 256 (Sec. 2.2).
        momentum: In [0, 1). 0.9 as in the reference code.
        weight_decay: >= 0. The paper: 1e-6 (Sec. 2.2).
        eta: Trust coefficient, > 0. 0.001 as in the reference code.
        trust_denominator: 'sum', the reference code: trust = eta * |w| / |u|. 'parts',
            mmpretrain, lightly and solo-learn:
            eta * |w| / (|g| + weight_decay * |w| + 1e-8). Where a norm is 0, trust
            is 1.
        include_1d: Also adapt and decay parameters of at most one dimension (norms,
            biases). By default these take trust 1 and no decay, as in the reference
            code, which finds them by name.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(self,
                 params: Iterable,
                 lr: float,
                 momentum: float = 0.9,
                 weight_decay: float = 0.,
                 eta: float = 0.001,
                 trust_denominator: str = 'sum',
                 include_1d: bool = False) -> None:
        _check('lr', lr, 'a number >= 0', lambda x: x >= 0)
        _check('momentum', momentum, 'a number in [0, 1)', lambda x: 0 <= x < 1)
        _check('weight_decay', weight_decay, 'a number >= 0', lambda x: x >= 0)
        _check('eta', eta, 'a number > 0', lambda x: x > 0)
        if trust_denominator not in ('sum', 'parts'):
            raise ValueError("trust_denominator must be 'sum' or 'parts', got "
                             f'{trust_denominator!r}: set '
                             'optim_wrapper.optimizer.trust_denominator')
        super().__init__(
            params,
            dict(
                lr=lr,
                momentum=momentum,
                weight_decay=weight_decay,
                eta=eta,
                trust_denominator=trust_denominator,
                include_1d=include_1d))

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient.

        Args:
            closure: Computes the gradients anew and returns the loss.

        Returns:
            The closure's loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # What foreach kernels take together, over all groups: paramwise_cfg makes a
        # group of every parameter.
        batches = defaultdict(list)
        for group in self.param_groups:
            for p in group['params']:
                if p.grad is not None:
                    adapted = group['include_1d'] or p.ndim > 1
                    form = group['trust_denominator'] if adapted else None
                    batches[p.device, p.dtype, form].append((p, group))
        for (_, _, form), batch in batches.items():
            self._update(*zip(*batch), form)
        return loss

    def _update(self, params: Sequence[Tensor], groups: Sequence[dict],
                form: str | None) -> None:
        if form is None:
            steps = torch._foreach_mul([p.grad for p in params], _column('lr', groups))
        else:
            steps = _adapted_steps(params, groups, form)
        velocities = [self._velocity(p) for p in params]
        torch._foreach_mul_(velocities, _column('momentum', groups))
        torch._foreach_add_(velocities, steps)
        torch._foreach_sub_(params, velocities)

    def _velocity(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if 'momentum_buffer' not in state:
            state['momentum_buffer'] = torch.zeros_like(p)
        return state['momentum_buffer']


def _adapted_steps(params: Sequence[Tensor], groups: Sequence[dict],
                   form: str) -> Sequence[Tensor]:
    """lr * trust * u for each of k parameters."""
    grads = [p.grad for p in params]
    decays = _column('weight_decay', groups)
    updates = torch._foreach_mul(params, decays)
    torch._foreach_add_(updates, grads)

    weights = torch._foreach_norm(params)  # k scalar tensors, as all norms below
    if form == 'sum':
        norms = denominators = torch._foreach_norm(updates)
    else:
        norms = torch._foreach_norm(grads)
        denominators = torch._foreach_mul(weights, decays)
        torch._foreach_add_(denominators, norms)
        torch._foreach_add_(denominators, 1e-8)  # as in mmpretrain
    numerators = torch.stack(torch._foreach_mul(weights, _column('eta', groups)))  # (k)
    usable = (numerators > 0) & (torch.stack(norms) > 0)  # (k)
    trust = torch.where(usable, numerators / torch.stack(denominators), 1.)  # (k)

    rates = torch._foreach_mul(trust.unbind(), _column('lr', groups))
    torch._foreach_mul_(updates, rates)
    return updates


def _column(name: str, groups: Sequence[dict]) -> list[float]:
    return [group[name] for group in groups]


def _check(name: str, value: float, expected: str, valid: Callable) -> None:
    if not isinstance(value, (int, float)) or not valid(value):
        raise ValueError(f'{name} must be {expected}, got {value!r}: set '
                         f'optim_wrapper.optimizer.{name}')
