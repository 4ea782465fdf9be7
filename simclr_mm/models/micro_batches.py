"""Embed a batch in chunks, without keeping activations for the backward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

_Output = TypeVar('_Output')


def in_micro_batches(
    embed: Callable[[Tensor], tuple[Tensor, ...]], inputs: Tensor, size: int, model: nn.Module
) -> tuple[Tensor, ...]:
    """``embed(inputs)`` with the activations of one chunk in memory at a time.

    Each chunk's activations are dropped and computed again in the backward pass, with the
    random state and the autocast of the first pass. This costs a second forward pass.
    Gradients equal those of one pass over the whole batch, except with BN: BN in training
    uses the statistics of a chunk. Its running statistics count each chunk once.

    Args:
        embed: Takes rows and returns tensors with as many rows. Apart from BN, each output
            row depends on its own input row only.
        inputs: (n, ...), split into as few chunks as possible, of nearly equal size.
        size: Rows of a chunk at most, >= 1.
        model: The module that holds every BN of ``embed``.
    """
    chunks = inputs.tensor_split(-(-len(inputs) // size))  # rounded up
    outputs = [recomputed(embed, chunk, model) for chunk in chunks]
    return tuple(map(torch.cat, zip(*outputs)))


def recomputed(function: Callable[[Tensor], _Output], inputs: Tensor, model: nn.Module) -> _Output:
    """``function(inputs)``, whose activations the backward pass computes again.

    ``model`` holds every BN of the function. Its running statistics count the inputs once.
    """
    if torch.compiler.is_compiling():  # the compiled passes write statistics once
        return checkpoint(function, inputs, use_reentrant=False)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return checkpoint(
        function,
        inputs,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _copied_statistics(norms)),
    )


@contextmanager
def _copied_statistics(norms: list[_BatchNorm]) -> Iterator[None]:
    """Let BN update copies of its running statistics, and throw them away.

    ``track_running_stats=False`` would update nothing either, but then the second pass saves
    fewer tensors than the first, which ``checkpoint`` refuses.
    """
    buffers = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        if norm.training:  # in eval mode it updates nothing
            kept = {name: buffer for name, buffer in norm._buffers.items() if buffer is not None}
            norm._buffers.update({name: buffer.clone() for name, buffer in kept.items()})
    try:
        yield
    finally:
        for norm, before in zip(norms, buffers):
            norm._buffers.update(before)
