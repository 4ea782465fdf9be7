"""Warn when the logged numbers show that nothing is learned."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from simclr_mm.registry import HOOKS

from .log_interval import is_log_line

_TRAINING = ('train/loss', 'train/chance', 'train/neg_sim')
_RANK, _STD, _ISOTROPIC = (
    f'label_free/{name}' for name in ('effective_rank', 'feature_std', 'isotropic_std')
)
# The loss has to be below chance by this share of chance. It is above the noise of a log line
# and is reached within some hundred steps.
_MARGIN = 0.01
# Mean cosine similarity of projections of different images; about 0 in healthy training.
_COLLAPSED = 0.95
# Effective rank below which features are multiples of one vector plus noise, and their standard
# deviation as a share of 1/sqrt(C): at 0.02 two images differ by an angle of one degree.
_LOWEST_RANK, _LOWEST_STD = 2.0, 0.02


@HOOKS.register_module()
class LearningWatchHook(Hook):
    """Warn when the encoder does not learn or its outputs have collapsed.

    It uses the numbers of each log line and each validation, and reads nothing from the
    device. It warns once, and again only after the numbers have recovered. It ignores
    models without a contrastive loss, and the loss of semi-hard mining, which picks pairs of
    high loss.

    Args:
        epochs: For how many epochs a symptom has to last. 3, because both numbers may stand
            still in the warm-up.
        min_steps: For how many steps it also has to last, for short epochs.
    """

    # After MMEngine's hooks have logged the numbers, before a checkpoint is saved.
    priority = 'LOW'

    def __init__(self, epochs: float = 3, min_steps: int = 300) -> None:
        self.epochs = epochs
        self.min_steps = min_steps

    def before_train(self, runner: Runner) -> None:
        self._read = self._well = runner.iter  # last step read, last healthy step
        self._told: set[str] = set()  # of 'training' and 'validation'

    def after_train_iter(self, runner: Runner, batch_idx: int, *args, **kwargs) -> None:
        scalars = runner.message_hub.log_scalars
        contrastive = all(name in scalars for name in _TRAINING)
        if not (contrastive and is_log_line(self, runner, batch_idx)):
            return
        step = runner.iter + 1
        loss, chance, neg_sim = (scalars[name].mean(step - self._read) for name in _TRAINING)
        mined = 'train/mined' in scalars
        symptom = _symptom(0.0 if mined else loss, chance, neg_sim)
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

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        metrics = metrics or {}
        if not hasattr(self, '_told') or not {_RANK, _STD, _ISOTROPIC} <= set(metrics):
            return  # no training, or no LabelFreeMetrics
        rank, share = metrics[_RANK], metrics[_STD] / metrics[_ISOTROPIC]
        width = round(metrics[_ISOTROPIC] ** -2)
        if rank >= _LOWEST_RANK and share >= _LOWEST_STD:
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


def _symptom(loss: float, chance: float, neg_sim: float) -> str | None:
    if _COLLAPSED <= neg_sim < 1.001:  # more is no cosine but a dot product, of another head
        return (
            f'projections of different images have had a cosine similarity of {_COLLAPSED} or '
            f'more, now {neg_sim:.3f}: they have collapsed to one point. Lower the learning rate'
        )
    if loss >= (1 - _MARGIN) * chance > 0:  # 0: a margin loss of margin 0
        return (
            f'the loss, now {loss:.2f}, has not been more than {100 * _MARGIN:g} % below chance, '
            f'{chance:.2f} (ln(VN - 1) for NT-Xent): the encoder is not learning. Change the '
            'learning rate'
        )
    return None
