"""Seeds for transforms that draw from the global generators."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

from .random_streams import RandomStream


@contextlib.contextmanager
def seeded_globals(rng: RandomStream) -> Iterator[None]:
    """Seed ``random``, ``numpy.random`` and torch's CPU generator, then restore them.

    For transforms of other packages, which draw from these generators.
    """
    seed = rng.next_word()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
