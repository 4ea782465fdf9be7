from .checkpoint_hook import CheckpointHook
from .lars import LARS
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .non_finite_guard import NonFiniteGuardHook
from .pretrained_backbone import PretrainedBackboneHook
from .runner import Runner
from .unreadable import UnreadableImageHook

__all__ = [
    'CheckpointHook', 'EpochBasedTrainLoop', 'IterBasedTrainLoop', 'LARS',
    'NonFiniteGuardHook', 'PretrainedBackboneHook', 'Runner', 'UnreadableImageHook'
]
