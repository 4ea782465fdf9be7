"""V random views of one image: crop, flip, and a pipeline for each view."""

import contextlib
import logging
import secrets
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from simclr_mm.errors import UserError
from simclr_mm.registry import TRANSFORMS

from .base import check_image, check_prob, check_range
from .batch_views import draw_views, make_views
from .batched import STEP_WIDTH, ViewsToMake, encode_step
from .crop import INTERPOLATIONS, resized_crop, sample_crop
from .pipelines import build_pipelines, foreign_names, is_foreign
from .random_streams import RandomStream, view_streams
from .seeding import seeded_globals

_AS_IT_IS = contextlib.nullcontext()


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

    A dataset in memory with ``batched=True`` has the views of a whole batch made at
    once, see :meth:`batch`; they are the same.

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
        transforms: Sequence[dict | Sequence[dict]] = (),
        augment: str = 'worker',
    ) -> None:
        if not isinstance(size, int) or size < 1:
            raise UserError(
                f'TwoViews: size must be a whole number of pixels above 0, got {size}: '
                f'write 224 for ImageNet, 32 for CIFAR-10.'
            )
        if num_views < 2:
            raise UserError(
                f'TwoViews: num_views must be at least 2, got {num_views}: the loss '
                f'compares views of one image.'
            )
        check_range(scale, 'TwoViews', 'scale', (0.08, 1.0), highest=1)
        check_range(ratio, 'TwoViews', 'ratio', (0.75, 1.33))
        check_prob(flip_prob, 'TwoViews', 'flip_prob')
        if interpolation not in INTERPOLATIONS:
            raise UserError(
                f'TwoViews: interpolation must be one of {INTERPOLATIONS}, got {interpolation!r}.'
            )
        self.size = size
        self.num_views = num_views
        self.scale = scale
        self.ratio = ratio
        self.flip_prob = flip_prob
        self.interpolation = interpolation
        self.pipelines = build_pipelines(transforms, num_views, size)  # V lists
        # By view: these are made one at a time, seeded and checked.
        self.foreign = [any(map(is_foreign, pipeline)) for pipeline in self.pipelines]
        # Decided here, in the process that trains, and not again in its workers.
        self.on_device = self._choose_device(augment)
        self._warned = False

    def _choose_device(self, augment: str) -> bool:
        if augment not in ('worker', 'device', 'auto'):
            raise UserError(
                f"TwoViews: augment must be 'worker', 'device' or 'auto', got {augment!r}."
            )
        if augment == 'worker' or (augment == 'auto' and not torch.cuda.is_available()):
            return False
        others = foreign_names(self.pipelines)
        if not others:
            return True
        reason = (
            f'{", ".join(others)} cannot run on the device, which takes the '
            f'random transforms of simclr_mm alone'
        )
        if augment == 'device':
            raise UserError(
                f"TwoViews: {reason}: write augment='worker' or 'auto', or leave them out."
            )
        print_log(f'TwoViews: {reason}: the workers augment.', logger='current')
        return False

    def batch(self, images: np.ndarray, indices: Sequence[int]) -> torch.Tensor | ViewsToMake:
        """The views of n images at once, those that each has by itself.

        Args:
            images: (n, H, W, 3) uint8 BGR.
            indices: (n,) their places in the dataset.

        Returns:
            (n, V, 3, S, S) uint8 BGR; or, where the device augments, images and drawn
            numbers, which ViewsPreprocessor makes them from.

        Raises:
            ValueError: A transform gave an image up, by mmcv's sign, None.
        """
        if not any(self.foreign):
            drawn = draw_views(self, *self._addresses(indices), *images.shape[1:3])
            if not self.on_device:
                return torch.from_numpy(make_views(self, images, drawn))
            parts = map(torch.from_numpy, (images, *drawn))
            return ViewsToMake(*parts, self.size, self.interpolation)
        views = np.empty((len(images), *self._shape), np.uint8)
        for image, index, out in zip(images, indices, views):
            if self._make(dict(img=image, sample_idx=index), out) is None:
                raise UserError(
                    f'TwoViews: a transform gave up image {int(index)} of a batch, '
                    f'which cannot do without it: write batched=False in the dataset.'
                )
        return torch.from_numpy(views)

    def transform(self, results: dict) -> dict | None:
        check_image(results['img'], 'TwoViews')
        if self.on_device:
            results['img'], params = self._leave_to_device(results)
        else:
            views = np.empty(self._shape, np.uint8)
            params = self._make(results, views)
            if params is None:
                return None
            results['img'] = views
        results['img_shape'] = (self.size, self.size)
        results['view_params'] = params
        return results

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        return self.num_views, 3, self.size, self.size

    def _make(self, results: dict, out: np.ndarray) -> list[dict] | None:
        """Crop, flip and augment.

        Args:
            results: Of one image.
            out: (V, 3, S, S) for its views.

        Returns:
            What was drawn for each view. None if a transform gave the image up.
        """
        params = []
        for v, pipeline in enumerate(self.pipelines):
            crop, *streams = self._streams(results.get('sample_idx'), v)
            img, drawn = self._crop_and_flip(results['img'], crop)
            view = dict(results, img=img, img_shape=img.shape[:2], view_params_one=drawn)
            with seeded_globals(streams[-1]) if self.foreign[v] else _AS_IT_IS:
                for transform, view['rng'] in zip(pipeline, streams):
                    view = transform(view)
                    if view is None:  # mmcv's sign for an image given up
                        return None
            if self.foreign[v]:
                self._check_view(view['img'], v)
            cv2.split(view['img'], list(out[v]))  # (S, S, 3) -> (3, S, S)
            params.append(drawn)
        return params

    def _leave_to_device(self, results: dict) -> tuple[list, list[dict]]:
        """Crops with the numbers of what the device shall do, and what was drawn."""
        crops = np.empty((self.num_views, self.size, self.size, 3), np.uint8)
        length = max(1, *map(len, self.pipelines))  # an empty tensor is not collated
        steps = np.zeros((self.num_views, length, STEP_WIDTH))  # (V, T, 9)
        params = []
        for v, pipeline in enumerate(self.pipelines):
            crop, *streams = self._streams(results.get('sample_idx'), v)
            crops[v], drawn = self._crop_and_flip(results['img'], crop)
            for t, (transform, rng) in enumerate(zip(pipeline, streams)):
                name = type(transform).__name__
                drawn[name] = transform.record(self.size, rng)
                steps[v, t] = encode_step(name, drawn[name])
            params.append(drawn)
        # A tensor, because PackInputs takes an array of three axes for an image.
        return [crops, torch.from_numpy(steps)], params

    def _streams(self, index: int | None, view: int) -> list[RandomStream]:
        """A stream for the crop, one for each step, one for others' transforms."""
        count = 1 + len(self.pipelines[view]) + self.foreign[view]
        if hasattr(index, 'seed'):
            return view_streams(index.seed, index.epoch, index.place, view, count)
        if index is not None:
            self._warn_of_plain_indices()
        return [RandomStream.unseeded() for _ in range(count)]

    def _addresses(self, indices: Sequence[int]) -> tuple[Sequence[int], ...]:
        """Seeds, epochs and images, (n,) each; fresh ones for plain indices."""
        if hasattr(indices[0], 'seed'):
            seeds = [index.seed for index in indices]
            places = [index.place for index in indices]
            return seeds, [index.epoch for index in indices], places
        self._warn_of_plain_indices()
        # Not the indices themselves: a plain sampler may give one twice.
        n = len(indices)
        return [secrets.randbits(64)] * n, [0] * n, range(n)

    def _warn_of_plain_indices(self) -> None:
        worker = get_worker_info()
        if not self._warned and (worker is None or worker.id == 0):
            print_log(
                'TwoViews: these views are not reproducible, because the sampler, or a '
                'dataset around this one such as ClassBalancedDataset, gives plain '
                "indices: write sampler=dict(type='simclr_mm.ResumableSampler') in the "
                'dataloader, and ConcatDataset or RepeatDataset around datasets.',
                logger='current',
                level=logging.WARNING,
            )
        self._warned = True

    def _crop_and_flip(self, img: np.ndarray, rng: RandomStream) -> tuple[np.ndarray, dict]:
        """A view (S, S, 3) of an image (H, W, 3), and what was drawn for it."""
        flip = rng.random() < self.flip_prob
        box = sample_crop(*img.shape[:2], self.scale, self.ratio, rng)
        img = resized_crop(img, box, self.size, self.interpolation, flip)
        return img, dict(crop=box, flip=flip)

    def _check_view(self, img: np.ndarray, view: int) -> None:
        check_image(img, f'TwoViews, after the transforms of view {view}')
        if img.shape[:2] != (self.size, self.size):
            raise UserError(
                f'TwoViews: the transforms of view {view} made the image '
                f'{img.shape[0]} x {img.shape[1]} pixels: they must keep size, '
                f'{self.size} x {self.size}.'
            )
