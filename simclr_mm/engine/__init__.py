from .hooks import (
    CheckpointHook,
    DataWaitHook,
    LearningWatchHook,
    NonFiniteGuardHook,
    PretrainedBackboneHook,
    RuntimeInfoHook,
    UnreadableImageHook,
)
from .lars import LARS
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .optim_wrapper import AutocastOptimWrapper
from .runner import Runner

__all__ = [
    'AutocastOptimWrapper',
    'CheckpointHook',
    'DataWaitHook',
    'EpochBasedTrainLoop',
    'IterBasedTrainLoop',
    'LARS',
    'LearningWatchHook',
    'NonFiniteGuardHook',
    'PretrainedBackboneHook',
    'Runner',
    'RuntimeInfoHook',
    'UnreadableImageHook',
]
