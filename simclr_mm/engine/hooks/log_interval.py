"""The interval of the training log."""

from mmengine.hooks import LoggerHook
from mmengine.runner import Runner


def log_interval(runner: Runner) -> int:
    """Steps between two lines of the training log. -1: only at the end of epochs."""
    loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
    return loggers[0].interval if loggers else -1
