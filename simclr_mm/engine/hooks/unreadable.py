"""Log and count the images that could not be read, and those that a transform dropped."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from simclr_mm.errors import UserError
from simclr_mm.registry import HOOKS


@HOOKS.register_module()
class UnreadableImageHook(Hook):
    """Name every unreadable image once, count them, and stop above a share.

    :class:`~simclr_mm.datasets.ReplaceUnreadable` replaces an unreadable training image by
    another. Each rank counts its own files. Images that a transform drops, by returning None, are
    counted apart and stop nothing.

    Args:
        max_share: Share in [0, 1] above which the run stops, of the images that this rank drew
            since the run began or resumed, or of one epoch if that is more. Replacements do
            not count. 0 stops at the first unreadable image; any other share tolerates one
            file. 0.01: a large collection has a few broken downloads, but one in a hundred is
            a fault of the storage.

    Raises:
        UserError: max_share is not in [0, 1], or the run stops.
    """

    def __init__(self, max_share: float = 0.01) -> None:
        if not isinstance(max_share, (int, float)) or not 0 <= max_share <= 1:
            raise UserError(
                f'default_hooks.unreadable.max_share is {max_share!r}: give a share of the '
                'images, a number in [0, 1].'
            )
        self.max_share = max_share
        self.paths: set[str] = set()
        self.failed = self.dropped = self.drawn = 0  # images, of this rank

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        samples = data_batch.get('data_samples') or ()
        self.drawn += len(samples)
        for sample in samples:
            unreadable = sample.get('unreadable', ())  # the image and failed replacements
            self.failed += any(path for path, _ in unreadable)
            for path, reason in unreadable:
                if not path:
                    self.dropped += 1
                    if self.dropped == 1:
                        runner.logger.error(f'replaced by another, as all that follow: {reason}')
                elif path not in self.paths:
                    self.paths.add(path)
                    # At ERROR, the level that MMLogger also shows on ranks above 0.
                    runner.logger.error(
                        f'unreadable image {len(self.paths)}, replaced by another: {reason}'
                    )
        drawn = max(self.drawn, len(runner.train_dataloader.sampler))
        tolerated = len(self.paths) <= 1 and self.max_share > 0
        if self.failed > self.max_share * drawn and not tolerated:
            raise UserError(
                f'{self.failed} of {drawn} images could not be read, more than '
                f'default_hooks.unreadable.max_share = {self.max_share:g} of them. Repair or '
                f'remove the files named in the log in {runner.log_dir}, or raise max_share.'
            )

    def after_train(self, runner: Runner) -> None:
        if self.paths:
            runner.logger.error(f'unreadable images replaced in this run: {len(self.paths)}.')
        if self.dropped:
            runner.logger.error(
                f'images that a transform dropped, replaced in this run: {self.dropped}.'
            )
