from .checkpoint_hook import CheckpointHook
from .data_wait import DataWaitHook
from .learning_watch import LearningWatchHook
from .non_finite_guard import NonFiniteGuardHook
from .pretrained_backbone import PretrainedBackboneHook
from .runtime_info import RuntimeInfoHook
from .unreadable import UnreadableImageHook

__all__ = [
    'CheckpointHook',
    'DataWaitHook',
    'LearningWatchHook',
    'NonFiniteGuardHook',
    'PretrainedBackboneHook',
    'RuntimeInfoHook',
    'UnreadableImageHook',
]
