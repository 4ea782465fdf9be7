"""Many training runs, each in its own process, for sweeps and fine-tuning."""

from .processes import RunFailed, TrainAndEvaluate, carry_out, device_of_each, outcomes_of
from .run import Run, last_step, last_validation, write_config

__all__ = [
    'Run',
    'RunFailed',
    'TrainAndEvaluate',
    'carry_out',
    'device_of_each',
    'last_step',
    'last_validation',
    'outcomes_of',
    'write_config',
]
