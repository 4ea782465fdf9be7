"""The interval of the training log."""

from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner


def log_interval(runner: Runner) -> int:
    """Steps between two lines of the training log. -1: only at the end of epochs."""
    loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
    return loggers[0].interval if loggers else -1


def is_log_line(hook: Hook, runner: Runner, batch_idx: int) -> bool:
    """Whether a line of the log follows this step, or the epoch ends with it."""
    return hook.every_n_inner_iters(batch_idx, log_interval(runner)) or hook.end_of_epoch(
        runner.train_dataloader, batch_idx
    )
