"""Many training runs, each in its own process or job, for sweeps and fine-tuning."""

from .processes import TrainAndEvaluate
from .run import Run, RunFailed, last_step, tell, write_table
from .slurm import Slurm, where

__all__ = [
    'Run',
    'RunFailed',
    'Slurm',
    'TrainAndEvaluate',
    'last_step',
    'tell',
    'where',
    'write_table',
]
