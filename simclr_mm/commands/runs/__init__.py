"""Many training runs, each in its own process, for sweeps and fine-tuning."""

from .processes import RunFailed, TrainAndEvaluate, carry_out, device_of_each, do_missing
from .run import Run, last_step, write_config

__all__ = [
    'Run',
    'RunFailed',
    'TrainAndEvaluate',
    'carry_out',
    'device_of_each',
    'do_missing',
    'last_step',
    'write_config',
]
