from .hooks.checkpoint_hook import CheckpointHook
from .hooks.data_wait import DataWaitHook
from .lars import LARS
from .hooks.learning_watch import LearningWatchHook
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .hooks.non_finite_guard import NonFiniteGuardHook
from .optim_wrapper import AutocastOptimWrapper
from .hooks.pretrained_backbone import PretrainedBackboneHook
from .runner import Runner
from .hooks.runtime_info import RuntimeInfoHook
from .hooks.unreadable import UnreadableImageHook

__all__ = [
    'AutocastOptimWrapper', 'CheckpointHook', 'DataWaitHook', 'EpochBasedTrainLoop',
    'IterBasedTrainLoop', 'LARS', 'LearningWatchHook', 'NonFiniteGuardHook',
    'PretrainedBackboneHook', 'Runner', 'RuntimeInfoHook', 'UnreadableImageHook'
]
