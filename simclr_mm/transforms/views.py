"""V random views of one image: crop, flip, and a pipeline for each view."""
import contextlib
import logging
import random
from typing import Callable, Iterator, Optional, Sequence, Union

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from simclr_mm.augment import STEP_WIDTH, encode_step
from simclr_mm.registry import TRANSFORMS

from .base import DeviceTransform, check_image, check_prob, check_range
from .color import ColorDistortion
from .crop import INTERPOLATIONS, resized_crop, sample_crop


def view_rng(seed: int, epoch: int, index: int, view: int) -> np.random.Generator:
    """The generator of one view: a function of these four numbers and nothing else."""
    return np.random.default_rng([seed, epoch, index, view])


def _is_foreign(transform: Callable) -> bool:
    return not type(transform).__module__.startswith('simclr_mm.')


def _steps(transform: Callable) -> list[Callable]:
    """What a transform does one after the other."""
    if type(transform) is ColorDistortion:
        return [transform.jitter, transform.gray]
    return [transform]


@contextlib.contextmanager
def seeded_globals(rng: np.random.Generator) -> Iterator[None]:
    """Seed ``random``, ``numpy.random`` and torch's CPU generator, then put them back.

    For transforms of other packages, which draw from these.
    """
    seed = int(rng.integers(2**32))
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@TRANSFORMS.register_module()
class TwoViews(BaseTransform):
    """V random resized crops of one image, flipped, each through its pipeline.

    Source: SimCLR, arXiv:2002.05709, Algorithm 1 and Appendix A.

    Reads ``img`` (uint8 BGR) and ``sample_idx``. Writes ``img``, a (V, 3, S, S) uint8
    array, still BGR, which mmpretrain's PackInputs turns into a tensor as it is;
    ``img_shape`` (S, S); and ``view_params``, a list of V dicts of what was drawn:
    ``crop`` (top, left, height, width), ``flip``, and by class name what each random
    transform of this package drew (None where it was not applied).

    Where the device augments, ``img`` is a list of two instead, crops and flips
    (V, S, S, 3) uint8 and for each view what was drawn, a tensor of numbers (V, T, 9)
    for T transforms. Both pass through PackInputs and default_collate;
    ViewsPreprocessor does the rest of the work, with the same drawn numbers and so, but
    for rounding, the same views.

    The views are a function of (seed, epoch, image, view) if the index comes from
    simclr_mm.ResumableSampler, in any worker and any order. Other packages' transforms
    find the global generators of Python, NumPy and torch seeded from that, too.

    Args:
        size: S, side of a view in pixels.
        num_views: V >= 2. AVGSimCLR takes four and more.
        scale: Range of the crop's area as a share of the image, in (0, 1].
        ratio: Range of the crop's width / height.
        flip_prob: Probability of a horizontal flip. 0 for images whose meaning a mirror
            changes, such as digits.
        interpolation: 'bilinear', torchvision's and mmpretrain's default, or 'bicubic',
            the reference code's.
        transforms: Configs of the transforms after crop and flip, for all views alike,
            or a list of V such lists, one for each view. They must keep (S, S, 3)
            uint8.
        augment: Who applies ``transforms``: 'worker', this process; 'device',
            ViewsPreprocessor on the model's device, in batches, for transforms of this
            package alone; 'auto', the device where this machine has a GPU that PyTorch
            can use and the transforms allow it, else the worker.

    Raises:
        ValueError: a value outside its range, as many pipelines as not V, an image that
            is not uint8 with three channels, or a pipeline that changes size or type.
    """

    def __init__(
        self,
        size: int,
        num_views: int = 2,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip_prob: float = 0.5,
        interpolation: str = 'bilinear',
        transforms: Sequence[Union[dict, Sequence[dict]]] = (),
        augment: str = 'worker',
    ) -> None:
        if not isinstance(size, int) or size < 1:
            raise ValueError(
                f'TwoViews: size must be a whole number of pixels above 0, got {size}: '
                f'write 224 for ImageNet, 32 for CIFAR-10.')
        if num_views < 2:
            raise ValueError(
                f'TwoViews: num_views must be at least 2, got {num_views}: the loss '
                f'compares views of one image.')
        check_range(scale, 'TwoViews', 'scale', (0.08, 1.0), highest=1)
        check_range(ratio, 'TwoViews', 'ratio', (0.75, 1.33))
        check_prob(flip_prob, 'TwoViews', 'flip_prob')
        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f'TwoViews: interpolation must be one of {INTERPOLATIONS}, got '
                f'{interpolation!r}.')
        self.size = size
        self.num_views = num_views
        self.scale = scale
        self.ratio = ratio
        self.flip_prob = flip_prob
        self.interpolation = interpolation
        self.pipelines = self._build(transforms)  # V lists
        self.foreign = [any(map(_is_foreign, pipeline)) for pipeline in self.pipelines]
        # Decided here, in the process that trains, and not again in its workers.
        self.on_device = self._choose_device(augment)
        self._warned = False

    def _build(self, transforms: Sequence) -> list[list]:
        per_view = [isinstance(entry, (list, tuple)) for entry in transforms]
        if not any(per_view):
            transforms = [transforms] * self.num_views
        elif not all(per_view):
            raise ValueError(
                'TwoViews: transforms mixes transforms and lists of transforms: write '
                'one list for all views, or one list for each view (an empty one for a '
                'view that is cropped and flipped only).')
        elif len(transforms) != self.num_views:
            raise ValueError(
                f'TwoViews: transforms has {len(transforms)} pipelines, but num_views '
                f'is {self.num_views}: write {self.num_views} pipelines, or one flat '
                f'list for all views.')
        return [[step for cfg in pipeline for step in _steps(TRANSFORMS.build(cfg))]
                for pipeline in transforms]

    def _choose_device(self, augment: str) -> bool:
        if augment not in ('worker', 'device', 'auto'):
            raise ValueError(f"TwoViews: augment must be 'worker', 'device' or 'auto', "
                             f'got {augment!r}.')
        if augment == 'worker' or (augment == 'auto' and not torch.cuda.is_available()):
            return False
        others = sorted({
            type(step).__name__
            for pipeline in self.pipelines
            for step in pipeline
            if _is_foreign(step) or not isinstance(step, DeviceTransform)
        })
        if not others:
            return True
        reason = (f'{", ".join(others)} cannot run on the device, which takes the '
                  f'random transforms of simclr_mm alone')
        if augment == 'device':
            raise ValueError(f"TwoViews: {reason}: write augment='worker' or 'auto', "
                             f'or leave them out.')
        print_log(f'TwoViews: {reason}: the workers augment.', logger='current')
        return False

    def transform(self, results: dict) -> Optional[dict]:
        check_image(results['img'], 'TwoViews')
        if self.on_device:
            return self._leave_to_device(results)
        shape = (self.num_views, 3, self.size, self.size)
        views = np.empty(shape, np.uint8)
        view_params = []
        for v, pipeline in enumerate(self.pipelines):
            rng = self._rng(results.get('sample_idx'), v)
            view = self._crop_and_flip(results, rng)
            view_params.append(view['view_params_one'])
            with seeded_globals(rng) if self.foreign[v] else contextlib.nullcontext():
                for transform in pipeline:
                    view = transform(view)
                    if view is None:  # mmcv's sign for an image given up
                        return None
            self._check_view(view['img'], v)
            cv2.split(view['img'], list(views[v]))  # (S, S, 3) -> (3, S, S)
        results['img'] = views
        results['img_shape'] = (self.size, self.size)
        results['view_params'] = view_params
        return results

    def _leave_to_device(self, results: dict) -> dict:
        crops = np.empty((self.num_views, self.size, self.size, 3), np.uint8)
        length = max(1, *map(len, self.pipelines))  # an empty tensor is not collated
        steps = np.zeros((self.num_views, length, STEP_WIDTH))  # (V, T, 9)
        view_params = []
        for v, pipeline in enumerate(self.pipelines):
            rng = self._rng(results.get('sample_idx'), v)
            view = self._crop_and_flip(results, rng)
            crops[v] = view['img']
            drawn = view['view_params_one']
            for t, transform in enumerate(pipeline):
                name = type(transform).__name__
                drawn[name] = transform.record(self.size, rng)
                steps[v, t] = encode_step(name, drawn[name])
            view_params.append(drawn)
        # A tensor, because PackInputs takes an array of three axes for an image.
        results['img'] = [crops, torch.from_numpy(steps)]
        results['img_shape'] = (self.size, self.size)
        results['view_params'] = view_params
        return results

    def _rng(self, index: Optional[int], view: int) -> np.random.Generator:
        if hasattr(index, 'seed'):
            return view_rng(index.seed, index.epoch, int(index), view)
        if index is not None and not self._warned:
            self._warned = True
            worker = get_worker_info()
            if worker is None or worker.id == 0:
                print_log(
                    'TwoViews: these views are not reproducible, because the sampler '
                    'gives plain indices: write '
                    "sampler=dict(type='simclr_mm.ResumableSampler') in the "
                    'dataloader.',
                    logger='current',
                    level=logging.WARNING)
        return np.random.default_rng()

    def _crop_and_flip(self, results: dict, rng: np.random.Generator) -> dict:
        img = results['img']  # (H, W, 3)
        box = sample_crop(*img.shape[:2], self.scale, self.ratio, rng)
        flip = bool(rng.random() < self.flip_prob)
        img = resized_crop(img, box, self.size, self.interpolation)  # (S, S, 3)
        if flip:
            img = cv2.flip(img, 1)
        return dict(
            results,
            img=img,
            img_shape=img.shape[:2],
            rng=rng,
            view_params_one=dict(crop=box, flip=flip))

    def _check_view(self, img: np.ndarray, view: int) -> None:
        check_image(img, f'TwoViews, after the transforms of view {view}')
        if img.shape[:2] != (self.size, self.size):
            raise ValueError(
                f'TwoViews: the transforms of view {view} made the image '
                f'{img.shape[0]} x {img.shape[1]} pixels: they must keep size, '
                f'{self.size} x {self.size}.')
