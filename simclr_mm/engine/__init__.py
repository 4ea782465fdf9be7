from .checkpoint_hook import CheckpointHook
from .lars import LARS
from .learning_watch import LearningWatchHook
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .non_finite_guard import NonFiniteGuardHook
from .pretrained_backbone import PretrainedBackboneHook
from .runner import Runner
from .runtime_info import RuntimeInfoHook
from .unreadable import UnreadableImageHook

__all__ = [
    'CheckpointHook', 'EpochBasedTrainLoop', 'IterBasedTrainLoop', 'LARS',
    'LearningWatchHook', 'NonFiniteGuardHook', 'PretrainedBackboneHook', 'Runner',
    'RuntimeInfoHook', 'UnreadableImageHook'
]
