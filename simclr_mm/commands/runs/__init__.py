"""Many training runs, each in a process of its own: for sweeps and for fine-tuning."""

from .processes import RunFailed, TrainAndEvaluate, carry_out, device_of_each, do_missing
from .run import Run, last_step, last_validation, write_config

__all__ = [
    'Run',
    'RunFailed',
    'TrainAndEvaluate',
    'carry_out',
    'device_of_each',
    'do_missing',
    'last_step',
    'last_validation',
    'write_config',
]
