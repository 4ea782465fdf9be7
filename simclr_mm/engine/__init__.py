from .checkpoint_hook import CheckpointHook
from .lars import LARS
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .pretrained_backbone import PretrainedBackboneHook
from .runner import Runner
from .unreadable import UnreadableImageHook

__all__ = [
    'CheckpointHook', 'EpochBasedTrainLoop', 'IterBasedTrainLoop', 'LARS',
    'PretrainedBackboneHook', 'Runner', 'UnreadableImageHook'
]
