"""SimCLR as a transformer of scikit-learn.

n images, H height and W width in pixels, C feature width.
"""

import csv
import io
import numbers
import os
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from simclr_mm.datasets.arrays import check_images
from simclr_mm.engine import build_runner
from simclr_mm.engine.options import merge_cfg_options
from simclr_mm.engine.ranks import plain_model
from simclr_mm.engine.resume import latest_checkpoint
from simclr_mm.engine.training_data import train_unlabelled
from simclr_mm.errors import UserError
from simclr_mm.files.atomic import atomic_file
from simclr_mm.files.hashes import bytes_hash
from simclr_mm.files.walk import image_paths
from simclr_mm.registry import type_name
from simclr_mm.transforms.load_bands import LoadBands
from simclr_mm.transforms.loading import LoadImageFromFile

from .encoder import Encoder, loading_of, pipeline_of
from .inference import FeatureInferencer
from .loading import build_encoder, load_encoder
from .model_zoo import find_config
from .preprocessing import Preprocessing

if TYPE_CHECKING:
    from sklearn.utils import Tags  # of scikit-learn 1.6 and newer, which alone asks for them

# A folder, paths of image files, or (n, H, W, 3) uint8.
Images = str | Path | Sequence[str | Path] | np.ndarray


class SimCLREncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Pretrain without labels in ``fit``, give features in ``transform``.

    Images are a folder (every image in it, at any depth, sorted by path), paths of image
    files, or an array (n, H, W, 3) uint8.

    Args:
        config: A model name, a config file or a Config. With ``pretrained`` it may be None:
            the config stored in the checkpoint.
        pretrained: Path or URL of a checkpoint, or True for the published weights of the
            model. ``fit`` then only loads them. None: ``fit`` trains from scratch.
        options: Settings of the config to override for training, as after
            ``--cfg-options``: ``{'train_cfg.max_epochs': 5}``.
        work_dir: Folder of the training's logs, checkpoints and config. None: a temporary
            one, which is deleted after the training.
        random_state: Seed of the training, a whole number. None: the config's, or else a new one
            in each fit.
        color_order: 'RGB' as in Pillow and scikit-learn, or 'BGR' as in OpenCV: the order
            in arrays. Files know theirs.
        batch_size: Images at a time in ``transform``.
        precision: Of ``transform``, as for :class:`FeatureInferencer`.
        device: Of ``transform``. None: a GPU if there is one.

    Attributes:
        encoder_: The trained :class:`Encoder`.

    Raises:
        UserError: In ``fit`` and ``transform``, for a value or an image that does not fit.
        CheckpointError: In ``fit``, if the weights cannot be read or do not fit.
        NotFittedError: In ``transform``, before ``fit``.

    Differs: scikit-learn's estimators take tables of numbers; this one takes images, and
    ``n_features_in_`` does not exist.
    """

    encoder_: Encoder

    def __init__(
        self,
        config: str | Path | Config | None = None,
        *,
        pretrained: bool | str | Path | None = None,
        options: Mapping[str, Any] | None = None,
        work_dir: str | Path | None = None,
        random_state: int | None = None,
        color_order: str = 'RGB',
        batch_size: int = 32,
        precision: str = 'fp32',
        device: str | torch.device | None = None,
    ) -> None:
        self.config = config
        self.pretrained = pretrained
        self.options = options
        self.work_dir = work_dir
        self.random_state = random_state
        self.color_order = color_order
        self.batch_size = batch_size
        self.precision = precision
        self.device = device

    def fit(self, X: Images, y: object = None) -> 'SimCLREncoder':
        """Pretrain on images. With ``pretrained``, load the weights; the images are ignored.

        Args:
            X: The images.
            y: Ignored.
        """
        if self.pretrained is None or self.pretrained is False:
            self.encoder_ = self._train(X)
        else:
            with _own_randomness():
                self.encoder_ = self._load(self.pretrained)
        # scikit-learn's get_feature_names_out reads it.
        self._n_features_out = self.encoder_.width()
        return self

    def transform(self, X: Images) -> np.ndarray:
        """Features (n, C) float32, a row for each image, as from :class:`FeatureInferencer`."""
        check_is_fitted(self)
        images = self._images(X, self.encoder_.loading)
        device = self.device or get_device()
        inferencer = FeatureInferencer(self.encoder_, device=device, precision=self.precision)
        bgr = images if isinstance(images, list) else list(images[..., ::-1])
        return inferencer(bgr, self.batch_size)

    def __sklearn_tags__(self) -> 'Tags':
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True  # of paths
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        tags.non_deterministic = self.random_state is None
        return tags

    def __getstate__(self) -> dict[str, Any]:
        if hasattr(self, 'encoder_'):
            self.encoder_.on('cpu')  # so that a machine without a GPU reads it
        return super().__getstate__()

    def _images(self, images: Images, loading: LoadImageFromFile) -> list[str] | np.ndarray:
        """Paths of what a loading step reads, or an array in RGB."""
        if self.color_order not in ('RGB', 'BGR'):
            raise UserError(f"color_order is {self.color_order!r}: give 'RGB' or 'BGR'")
        if isinstance(images, (str, Path)):
            folder = os.path.expanduser(images)
            return [os.path.abspath(path) for path in image_paths(folder, loading.extensions)]
        if isinstance(images, (list, tuple)) or getattr(images, 'ndim', 0) == 1:
            if not len(images) or not all(isinstance(path, (str, Path)) for path in images):
                raise UserError(
                    'images are a folder, paths of image files, or one array (n, height, width, '
                    f'3) uint8; got {len(images)} of something else'
                )
            return [os.path.abspath(os.path.expanduser(path)) for path in images]
        array = np.asarray(images)
        if isinstance(loading, LoadBands):
            raise UserError(
                'the encoder takes bands as simclr_mm.LoadBands reads them: give paths of files, '
                'not an array'
            )
        check_images(array, type(self).__name__)
        return array if self.color_order == 'RGB' else array[..., ::-1]

    def _load(self, weights: bool | str | Path) -> Encoder:
        if self.config is not None:
            return build_encoder(self.config, weights)
        if isinstance(weights, bool):
            raise UserError('pretrained=True needs a config, the name of a model with weights')
        return load_encoder(weights)

    def _train(self, X: Images) -> Encoder:
        if self.config is None:
            raise UserError(
                'config is None: name a config to train, as list_models() does, or give pretrained'
            )
        cfg, _ = find_config(self.config)
        if not cfg.get('train_dataloader') or type_name(cfg.get('model')) == 'ImageClassifier':
            raise UserError(f'{self.config} is no config of a pretraining: name one of those')
        images = self._images(X, loading_of(pipeline_of(cfg, 'train')))
        temporary = self.work_dir is None
        with tempfile.TemporaryDirectory() if temporary else nullcontext(self.work_dir) as folder:
            cfg.work_dir = str(folder)
            train_unlabelled(cfg, _stored(images, Path(cfg.work_dir)))
            if self.random_state is not None:
                if not isinstance(self.random_state, numbers.Integral) or self.random_state < 0:
                    raise UserError(
                        f'random_state is {self.random_state!r}: give a whole number from 0'
                    )
                cfg.randomness = dict(cfg.get('randomness') or {}, seed=int(self.random_state))
            merge_cfg_options(cfg, self.options, 'options')
            # As in scikit-learn: without a seed each fit differs, and NumPy's state decides how.
            seeded = (cfg.get('randomness') or {}).get('seed') is not None
            with _own_randomness(None if seeded else np.random.randint(2**31)):
                runner = build_runner(cfg)
                # Else `fit` would train, and then not know the size of a test image.
                preprocessor = plain_model(runner).data_preprocessor
                Preprocessing.of(preprocessor, pipeline_of(cfg), str(self.config))
                _require_last_checkpoint(runner)
                runner.train()
                return load_encoder(str(latest_checkpoint(runner.work_dir)), cfg)


def _require_last_checkpoint(runner: Runner) -> None:
    """Refuse settings with which a training would not keep its last weights."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    if hook is not None:
        length = runner.cfg.train_cfg.get('max_epochs' if hook.by_epoch else 'max_iters')
        since = (length or 0) - hook.save_begin  # as MMEngine counts
        saved = length and since >= 0 and hook.interval > 0 and since % hook.interval == 0
        if hook.save_last or saved:
            return
    raise UserError(
        'the encoder is read from a checkpoint of the end, and default_hooks.checkpoint saves '
        'none: leave it and its save_last as they are'
    )


def _stored(images: list[str] | np.ndarray, folder: Path) -> dict[str, Any]:
    """The dataset of images, and its file in the folder, from which a run can be resumed."""
    folder.mkdir(parents=True, exist_ok=True)
    # By content: a second fit in this folder, with other images, leaves those of the first.
    if isinstance(images, np.ndarray):
        images = np.ascontiguousarray(images)
        file = folder / f'images-{bytes_hash([images.data])[:8]}.npy'
        with atomic_file(file) as opened:
            np.save(opened, images)
        return dict(type='simclr_mm.ArrayFile', data_root=str(file))
    table = io.StringIO(newline='')
    csv.writer(table).writerows([['path'], *([path] for path in images)])
    content = table.getvalue().encode(errors='surrogateescape')
    file = folder / f'images-{bytes_hash([content])[:8]}.csv'
    with atomic_file(file) as opened:
        opened.write(content)
    return dict(type='simclr_mm.ImageList', places=[str(file)])


@contextmanager
def _own_randomness(fresh: int | None = None) -> Iterator[None]:
    """Leave the caller's random generators as they are; a runner seeds them, a model draws.

    A runner without a seed draws its own from NumPy, which begins with ``fresh``.
    """
    states = random.getstate(), np.random.get_state()
    try:
        if fresh is not None:
            np.random.seed(fresh)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
