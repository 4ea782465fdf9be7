"""Many training runs, each in its own process, for sweeps and fine-tuning."""

from .processes import TrainAndEvaluate
from .run import Run, RunFailed, last_step

__all__ = ['Run', 'RunFailed', 'TrainAndEvaluate', 'last_step']
