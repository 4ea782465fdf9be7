"""Warn when the logged numbers show that nothing is learned."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from simclr_mm.registry import HOOKS

from .log_interval import log_interval

_TRAINING = ('train/loss', 'train/chance', 'train/neg_sim')
_RANK, _STD, _ISOTROPIC = (
    f'label_free/{name}' for name in ('effective_rank', 'feature_std', 'isotropic_std')
)


@HOOKS.register_module()
class LearningWatchHook(Hook):
    """Warn when the encoder does not learn or its outputs have collapsed.

    It uses the numbers of each log line and each validation, and reads nothing from the
    device. It warns once, and again only after the numbers have recovered. It ignores
    models without a contrastive loss.

    Args:
        loss_margin: The loss has to be below chance by this share of chance. 0.01 is above
            the noise of a log line and is reached within some hundred steps. Ignored with
            semi-hard mining, which picks pairs of high loss.
        max_neg_sim: Mean cosine similarity of projections of different images from which
            on they count as collapsed. It is about 0 in healthy training.
        epochs: For how many epochs a symptom has to last. 3, because both numbers may stand
            still in the warm-up.
        min_steps: For how many steps it also has to last, for short epochs.
        min_rank: Lowest effective rank of the validation features. Below 2 they are
            multiples of one vector plus noise.
        min_std: Lowest standard deviation of the normalised validation features, as a
            share of 1/sqrt(C). At 0.02 two images differ by an angle of one degree.
    """

    # After MMEngine's hooks have logged the numbers, before a checkpoint is saved.
    priority = 'LOW'

    def __init__(
        self,
        loss_margin: float = 0.01,
        max_neg_sim: float = 0.95,
        epochs: float = 3,
        min_steps: int = 300,
        min_rank: float = 2.0,
        min_std: float = 0.02,
    ) -> None:
        self.loss_margin = loss_margin
        self.max_neg_sim = max_neg_sim
        self.epochs = epochs
        self.min_steps = min_steps
        self.min_rank = min_rank
        self.min_std = min_std

    def before_train(self, runner: Runner) -> None:
        self._interval = log_interval(runner)
        self._read = self._well = runner.iter  # last step read, last healthy step
        self._told: set[str] = set()  # of 'training' and 'validation'

    def after_train_iter(self, runner: Runner, batch_idx: int, *args, **kwargs) -> None:
        if not (
            self.every_n_inner_iters(batch_idx, self._interval)
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
        ):
            return
        scalars = runner.message_hub.log_scalars
        if not all(name in scalars for name in _TRAINING):
            return
        step = runner.iter + 1
        loss, chance, neg_sim = (scalars[name].mean(step - self._read) for name in _TRAINING)
        mined = 'train/mined' in scalars
        symptom = self._symptom(0.0 if mined else loss, chance, neg_sim)
        self._read = step
        if symptom is None:
            self._well = step
            self._told.discard('training')
        lasted = step - self._well
        epochs = lasted / len(runner.train_dataloader)
        if epochs >= self.epochs and lasted >= self.min_steps:
            self._tell(
                runner,
                'training',
                f'For {epochs:.3g} epochs, {lasted} steps, {symptom} and look at the views.',
            )

    def _symptom(self, loss: float, chance: float, neg_sim: float) -> str | None:
        if neg_sim >= self.max_neg_sim:
            return (
                'projections of different images have had a cosine similarity of '
                f'{self.max_neg_sim:g} or more, now {neg_sim:.3f}: they have '
                'collapsed to one point. Lower the learning rate'
            )
        if loss >= (1 - self.loss_margin) * chance:
            return (
                f'the loss, now {loss:.2f}, has not been more than {100 * self.loss_margin:g} % '
                f'below chance, {chance:.2f} (ln(VN - 1) for NT-Xent): the encoder is not '
                'learning. Change the learning rate'
            )
        return None

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        metrics = metrics or {}
        if not hasattr(self, '_told') or not {_RANK, _STD, _ISOTROPIC} <= set(metrics):
            return  # no training, or no LabelFreeMetrics
        rank, share = metrics[_RANK], metrics[_STD] / metrics[_ISOTROPIC]
        width = round(metrics[_ISOTROPIC] ** -2)
        if rank >= self.min_rank and share >= self.min_std:
            self._told.discard('validation')
            return
        self._tell(
            runner,
            'validation',
            f'Effective rank {rank:.1f} of {width}, standard deviation {share:.2g} of that of '
            'features in all directions: the features of the validation images are nearly the '
            'same; the encoder has collapsed, or has hardly been trained.',
        )

    def _tell(self, runner: Runner, kind: str, sentence: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            runner.logger.warning(sentence)
