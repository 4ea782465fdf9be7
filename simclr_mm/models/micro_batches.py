"""Embed a batch in chunks that keep no activations between forward and backward."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def in_micro_batches(
    embed: Callable[[Tensor], tuple[Tensor, ...]], inputs: Tensor, size: int, model: nn.Module
) -> tuple[Tensor, ...]:
    """``embed(inputs)`` with the activations of one chunk in memory at a time.

    Each chunk's activations are dropped and computed again in the backward pass, which
    costs a second forward pass. That pass has the random state and the autocast of the
    first. Gradients are those of one pass over the whole batch.

    Except with BN: it takes the statistics of a chunk, not of the batch, in both passes.
    Its running statistics count each chunk once.

    Args:
        embed: Takes rows and returns tensors of as many rows. Each row depends on its
            own row only, except through BN.
        inputs: (n, ...). Split into as few chunks as ``size`` allows, equal but for
            one row.
        size: Rows of a chunk at most, >= 1.
        model: The module that holds every BN of ``embed``.

    Returns:
        (n, ...) each, the chunks' outputs in order.
    """
    chunks = inputs.tensor_split(-(-len(inputs) // size))  # rounded up
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    outputs = [
        checkpoint(embed, chunk, use_reentrant=False, context_fn=partial(_contexts, norms))
        for chunk in chunks
    ]
    return tuple(map(torch.cat, zip(*outputs)))


def _contexts(norms: list[_BatchNorm]) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Contexts of the first and of the second forward pass of a chunk."""
    return nullcontext(), _copied_statistics(norms)


@contextmanager
def _copied_statistics(norms: list[_BatchNorm]) -> Iterator[None]:
    """Let BN count into copies of its running statistics, which are thrown away.

    Turning ``track_running_stats`` off would count nothing either, but then the second
    pass saves fewer tensors than the first, which ``checkpoint`` refuses.
    """
    buffers = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        if norm.training:  # an evaluating one counts nothing
            norm._buffers.update(
                {
                    name: buffer.clone()
                    for name, buffer in norm._buffers.items()
                    if buffer is not None
                }
            )
    try:
        yield
    finally:
        for norm, before in zip(norms, buffers):
            norm._buffers.update(before)
