from .checkpoint_hook import CheckpointHook
from .data_wait import DataWaitHook
from .lars import LARS
from .learning_watch import LearningWatchHook
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .non_finite_guard import NonFiniteGuardHook
from .optim_wrapper import AutocastOptimWrapper
from .pretrained_backbone import PretrainedBackboneHook
from .runner import Runner
from .runtime_info import RuntimeInfoHook
from .unreadable import UnreadableImageHook

__all__ = [
    'AutocastOptimWrapper', 'CheckpointHook', 'DataWaitHook', 'EpochBasedTrainLoop',
    'IterBasedTrainLoop', 'LARS', 'LearningWatchHook', 'NonFiniteGuardHook',
    'PretrainedBackboneHook', 'Runner', 'RuntimeInfoHook', 'UnreadableImageHook'
]
