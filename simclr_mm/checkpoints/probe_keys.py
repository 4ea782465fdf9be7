"""The online probe's weights, which a checkpoint may have or lack."""

from collections.abc import Mapping

from mmengine.logging import print_log
from torch import Tensor

PROBE = 'probe.'


def fit_probe(state: dict[str, Tensor], expected: Mapping[str, Tensor], prefix: str = '') -> None:
    """Let an encoder be loaded with the probe on one side only, with a line in the log.

    Where both sides have a probe, or neither, nothing is done, and its keys have to fit
    like all others.

    Args:
        state: What is to be loaded. Changed in place: a probe that the model lacks is
            taken out, one that the model alone has is put in as it is there.
        expected: The model's own state_dict.
        prefix: What stands before the probe's own prefix in all keys.
    """
    found = [key for key in state if key.startswith(prefix + PROBE)]
    wanted = [key for key in expected if key.startswith(prefix + PROBE)]
    if bool(found) == bool(wanted):
        return
    if found:
        print_log(
            f'the model has no online probe: left out {", ".join(found)} of the checkpoint',
            logger='current',
        )
    else:
        print_log(
            f'the checkpoint has no online probe: {", ".join(wanted)} of the model '
            'stay as they are',
            logger='current',
        )
    for key in found:
        del state[key]
    state.update({key: expected[key] for key in wanted})
