from .hooks.checkpoint_hook import CheckpointHook
from .hooks.data_wait import DataWaitHook
from .hooks.free_cores import FreeCoresHook
from .hooks.learning_watch import LearningWatchHook
from .hooks.non_finite_guard import NonFiniteGuardHook
from .hooks.preemption import PreemptionHook
from .hooks.pretrained_backbone import PretrainedBackboneHook
from .hooks.progress_bar import ProgressBarHook
from .hooks.runtime_info import RuntimeInfoHook
from .hooks.unreadable import UnreadableImageHook
from .lars import LARS
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .optim_wrapper import AutocastOptimWrapper
from .runner import Runner, build_runner

__all__ = [
    'AutocastOptimWrapper',
    'CheckpointHook',
    'DataWaitHook',
    'EpochBasedTrainLoop',
    'FreeCoresHook',
    'IterBasedTrainLoop',
    'LARS',
    'LearningWatchHook',
    'NonFiniteGuardHook',
    'PreemptionHook',
    'PretrainedBackboneHook',
    'ProgressBarHook',
    'Runner',
    'RuntimeInfoHook',
    'UnreadableImageHook',
    'build_runner',
]
