"""TwoViews: V random views of one image, with a crop, a flip and a pipeline each."""

import logging
import secrets
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from simclr_mm.errors import UserError
from simclr_mm.losses.precision import full_float32
from simclr_mm.registry import TRANSFORMS

from .base import RandomTransform, Transform, check_image, check_size, is_bgr, to_planes
from .batched import ViewsToMake
from .batched.crop import INTERPOLATIONS
from .batched.views_to_make import CROP_WIDTH
from .crop import RandomCropAndFlip, box_of, check_crop, resized_crop
from .drawing import (
    build_pipelines,
    decode_view,
    draw_batch,
    draw_view,
    encode_steps,
    is_foreign,
    shape_of_steps,
)
from .random_streams import RandomStream, seeded_globals, view_streams

# Transforms of mmcv and mmpretrain that compute with colours, or with levels up to 255.
_FOR_COLOURS = frozenset(
    'AutoAugment AutoContrast Brightness ColorJitter ColorTransform Contrast Equalize GaussianBlur '
    'Invert Lighting Posterize RandAugment RandomGrayscale Sharpness Solarize SolarizeAdd'.split()
)
_MOST_VIEWS = 1000  # a number beyond it is a slip, and would exhaust the memory


@TRANSFORMS.register_module()
class TwoViews(Transform):
    """V random resized crops of one image, each flipped and sent through its pipeline.

    The name comes from the usual V = 2.

    Source: SimCLR, arXiv:2002.05709, Algorithm 1 and Appendix A.

    Reads ``img``, (H, W, C) uint8 or float32, BGR if it has colours, ``sample_idx`` and, if a
    dataset's positives are other images, ``imgs``: V images, one for each view, None for ``img``.
    Writes ``img``, a (V, C, S, S) array of the same type, which mmpretrain's PackInputs turns into
    a tensor; ``img_shape`` (S, S); and
    ``view_params``, a list of V dicts with the drawn parameters: ``crop`` (top, left, height,
    width), ``flip``, and by class name the parameters of each random transform of this package
    (None if it was not applied).

    If the device augments, ``img`` is a list instead: the fields of
    :class:`~simclr_mm.transforms.batched.ViewsToMake` for one image. PackInputs keeps only
    lists unchanged. ViewsPreprocessor makes the views from it with the same drawn numbers,
    so they are the same up to rounding.

    A dataset in memory with ``batched=True`` makes the views of a whole batch at once, see
    :meth:`batch`. They are the same.

    The views are a function of (seed, epoch, image, view) if the index comes from
    simclr_mm.ResumableSampler, in any worker and any order. Transforms of other packages
    get global generators of Python, NumPy and torch that are seeded from that address.

    Args:
        size: S, side of a view in pixels, or the sides of each stage of training.
        num_views: V >= 2. AVGSimCLR uses four and more.
        scale: Range of the crop's area as a share of the image, in (0, 1].
        ratio: Range of the crop's width / height.
        flip_prob: Probability of a horizontal flip. Write 0 if a mirror changes the meaning
            of images, such as digits.
        interpolation: 'bilinear', the default of torchvision and mmpretrain, or 'bicubic',
            as in the reference code.
        transforms: Configs of the transforms after crop and flip, for all views, or a list of V
            such lists, one for each view. They must keep size, bands and type. Images other than
            uint8 BGR need transforms for any bands, such as BandJitter.
        augment: Who applies ``transforms``. 'worker': this process. 'device':
            ViewsPreprocessor on the model's device, in batches; it supports only
            DeviceTransforms. 'auto': the device if PyTorch can use a GPU of this machine
            and the transforms allow it, else the worker.
        milestones: With several sizes, after how many epochs each size but the first begins, as
            in MultiStepLR: ``size=[16, 24, 32], milestones=[6, 11]`` trains 6 epochs at 16 pixels,
            5 at 24, and all others at 32. Needs ResumableSampler.

    Raises:
        UserError: A value is outside its range, milestones do not fit the sizes or nobody says the
            epoch, the number of pipelines is not V, an image is not (H, W, C) uint8 or float32 or
            has bands that a transform cannot take, or a pipeline changes size, bands or type.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        num_views: int = 2,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip_prob: float = 0.5,
        interpolation: str = 'bilinear',
        transforms: Sequence = (),
        augment: str = 'worker',
        milestones: Sequence[int] = (),
    ) -> None:
        self.sizes = _check_stages(size, milestones)
        if not 2 <= num_views <= _MOST_VIEWS:
            raise UserError(
                f'TwoViews: num_views must be from 2 to {_MOST_VIEWS}, got {num_views}.'
            )
        check_crop('TwoViews', scale, ratio, flip_prob)
        if interpolation not in INTERPOLATIONS:
            raise UserError(
                f'TwoViews: interpolation must be one of {INTERPOLATIONS}, got {interpolation!r}.'
            )
        self.size = size
        self.milestones = milestones
        self.num_views = num_views
        self.scale = scale
        self.ratio = ratio
        self.flip_prob = flip_prob
        self.interpolation = interpolation
        self.crop = RandomCropAndFlip(None, scale, ratio, flip_prob)
        self.transforms = transforms
        self.augment = augment
        self.pipelines: list[list] = build_pipelines(transforms, num_views, self.sizes)  # V lists
        self.step_shape = shape_of_steps(self.pipelines)
        # For each view: whether it needs mmcv's calls, with seeds and checks.
        self.foreign = [any(map(is_foreign, pipeline)) for pipeline in self.pipelines]
        # Decided once, in the process that trains, and not in its workers.
        self.on_device = self._choose_device(augment)
        self._warned = False
        self._taken: set[tuple] = set()  # types and numbers of bands that all steps can take

    def _choose_device(self, augment: str) -> bool:
        if augment not in ('worker', 'device', 'auto'):
            raise UserError(
                f"TwoViews: augment must be 'worker', 'device' or 'auto', got {augment!r}."
            )
        if augment == 'worker' or (augment == 'auto' and not torch.cuda.is_available()):
            return False
        steps = sum(self.pipelines, [])
        others = sorted({type(step).__name__ for step in steps if is_foreign(step)})
        if not others:
            return True
        reason = f'{", ".join(others)} cannot run on the device, only DeviceTransforms can'
        if augment == 'device':
            raise UserError(
                f"TwoViews: {reason}: write augment='worker' or 'auto', or leave them out."
            )
        print_log(f'TwoViews: {reason}: the workers augment.', logger='current')
        return False

    def batch(
        self, images: np.ndarray, indices: Sequence[int], others: np.ndarray | None = None
    ) -> torch.Tensor | ViewsToMake:
        """The views of n images at once, equal to the views of each image alone.

        Args:
            images: (n, H, W, C) uint8 or float32, C = 3 of uint8 BGR.
            indices: (n,) their indices in the dataset.
            others: (n, V - 1, H, W, C) the images of the views after the first. None: the same.

        Returns:
            (n, V, C, S, S), as the images. If the device augments, images and drawn numbers for
            ViewsPreprocessor.

        Raises:
            UserError: A transform cannot take the images, or dropped one, which mmcv marks by None.
        """
        self._check_input(images[0])
        size = self._size(indices[0])  # a batch is of one epoch
        imgs = [None] * len(images) if others is None else [[None, *each] for each in others]
        singles = [
            dict(img=image, imgs=each, sample_idx=index)
            for image, each, index in zip(images, imgs, indices)
        ]
        if self.on_device and others is not None:
            parts = zip(*(self._leave_to_device(single, size)[0] for single in singles))
            return ViewsToMake(*(torch.stack([*map(torch.as_tensor, part)]) for part in parts))
        if self.on_device:
            crops, steps = draw_batch(self, self._addresses(indices), size, *images.shape[1:3])
            return ViewsToMake(*map(torch.from_numpy, (images, crops, steps)))
        made = np.empty((len(images), *self._shape(images[0], size)), images.dtype)
        if others is None and not any(self.foreign):
            crops, steps = draw_batch(self, self._addresses(indices), size, *images.shape[1:3])
            for image, out, *numbers in zip(images, made, crops.tolist(), steps.tolist()):
                for v, (crop, rows) in enumerate(zip(*numbers)):
                    self._make(image, v, decode_view(self, v, crop, rows), out[v])
            return torch.from_numpy(made)
        for single, out in zip(singles, made):
            if self._make_all(single, out) is None:
                raise UserError(
                    f'TwoViews: a transform returned None for image {int(single["sample_idx"])}, '
                    f'but a batch needs every image: write batched=False in the dataset.'
                )
        return torch.from_numpy(made)

    def transform(self, results: dict) -> dict | None:
        as_in_file = results.get('bands_as_in_file', False)
        self._check_input(results['img'], as_in_file)
        for other in results.get('imgs') or ():
            if other is not None:
                self._check_input(other, as_in_file)
                _check_alike(other, results['img'], 'two images of one sample')
        size = self._size(results.get('sample_idx'))
        if self.on_device:
            results['img'], params = self._leave_to_device(results, size)
        else:
            views = np.empty(self._shape(results['img'], size), results['img'].dtype)
            made = self._make_all(results, views)
            if made is None:
                return None
            results['img'], params = views, made
        results['img_shape'] = (size, size)
        results['view_params'] = params
        results.pop('imgs', None)
        return results

    def _make_all(self, results: dict, out: np.ndarray) -> list[dict] | None:
        """Make the views of one image, (V, C, S, S), and return the drawn parameters.

        None if a transform dropped the image.
        """
        params = []
        for v in range(self.num_views):
            img = _image_of(results, v)
            streams = self._streams(results.get('sample_idx'), v)
            if self.foreign[v]:
                shown = self._call(results, v, streams, out[v])
                if shown is None:
                    return None
            else:
                height, width = img.shape[:2]
                drawn = draw_view(self, v, out.shape[-1], height, width, streams)
                self._make(img, v, drawn, out[v])
                shown = self._shown(v, drawn)
            params.append(shown)
        return params

    def _make(self, img: np.ndarray, v: int, drawn: Sequence, out: np.ndarray) -> None:
        """Make a drawn view, (C, S, S), of an image (H, W, C).

        OpenCV makes one view at a time, so a view of 32 pixels stays in a CPU's cache.
        """
        view = self._cropped(img, drawn[0], out.shape[-1])
        steps = [pair for pair in zip(self.pipelines[v], drawn[1:]) if pair[1] is not None]
        if is_bgr(img):
            for transform, params in steps:
                view = transform.paint(view, params)
            cv2.split(view, list(out))  # (S, S, 3) -> (3, S, S)
        else:
            images = to_planes(view)  # (1, C, S, S)
            with full_float32(images.device):
                for transform, params in steps:
                    images = transform.paint_planes(images, params)
            out[:] = images[0].numpy()[::-1]

    def _call(
        self, results: dict, v: int, streams: list[RandomStream], out: np.ndarray
    ) -> dict | None:
        """Make a view with transforms that draw by themselves, and return the drawn parameters."""
        whole = _image_of(results, v)
        height, width = whole.shape[:2]
        crop = self.crop.draw(height, width, streams[0])
        shown = self._shown(v, [crop])
        img = self._cropped(whole, crop, out.shape[-1])
        view = dict(results, img=img, img_shape=img.shape[:2], view_params_one=shown)
        with seeded_globals(streams[-1]):
            for transform, view['rng'] in zip(self.pipelines[v], streams[1:]):
                view = transform(view)
                if view is None:  # mmcv's mark of a dropped image
                    return None
        self._check_view(view['img'], img, v)
        out[:] = view['img'].transpose(2, 0, 1)
        return shown

    def _leave_to_device(self, results: dict, size: int) -> tuple[list, list[dict]]:
        """The fields of ViewsToMake for one image, and the drawn parameters."""
        shape = self.num_views, size, size, results['img'].shape[2]
        made = np.empty(shape, results['img'].dtype)
        steps = np.zeros((self.num_views, *self.step_shape))
        params = []
        for v in range(self.num_views):
            streams = self._streams(results.get('sample_idx'), v)
            img = _image_of(results, v)
            height, width = img.shape[:2]
            drawn = draw_view(self, v, size, height, width, streams)
            made[v] = self._cropped(img, drawn[0], size)
            encode_steps(self.pipelines[v], drawn[1:], steps[v])
            params.append(self._shown(v, drawn))
        boxes = torch.zeros(self.num_views, CROP_WIDTH, dtype=torch.float64)  # not needed again
        # Tensors, because PackInputs treats an array of three axes as an image.
        return [made, boxes, torch.from_numpy(steps)], params

    def _shown(self, v: int, drawn: Sequence) -> dict:
        """A view's entry in ``view_params``."""
        names = (type(transform).__name__ for transform in self.pipelines[v])
        crop = drawn[0]
        return dict(crop=box_of(crop), flip=crop['flip'], **dict(zip(names, drawn[1:])))

    def _streams(self, index: Any, v: int) -> list[RandomStream]:
        """Streams for the crop, for each step, and for foreign transforms if there are any."""
        count = 1 + len(self.pipelines[v]) + self.foreign[v]
        if hasattr(index, 'seed'):
            return view_streams(index.seed, index.epoch, index.place, v, count)
        if index is not None:
            self._warn_of_plain_indices()
        return [RandomStream.unseeded() for _ in range(count)]

    def _addresses(self, indices: Sequence) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """Seeds, epochs and images, (n,) each. Plain indices get a random seed."""
        if hasattr(indices[0], 'seed'):
            seeds = [index.seed for index in indices]
            places = [index.place for index in indices]
            return seeds, [index.epoch for index in indices], places
        self._warn_of_plain_indices()
        # Not the indices themselves, because a plain sampler may repeat one.
        n = len(indices)
        return [secrets.randbits(64)] * n, [0] * n, range(n)

    def _warn_of_plain_indices(self) -> None:
        worker = get_worker_info()
        if not self._warned and (worker is None or worker.id == 0):
            print_log(
                'TwoViews: these views are not reproducible, because the sampler, or a '
                'dataset around this one that is none of PyTorch or MMEngine, gives plain '
                "indices: write sampler=dict(type='simclr_mm.ResumableSampler') in the "
                'dataloader, and ConcatDataset, RepeatDataset or Subset around datasets.',
                logger='current',
                level=logging.WARNING,
            )
        self._warned = True

    def _cropped(self, img: np.ndarray, drawn: dict, size: int) -> np.ndarray:
        return resized_crop(img, box_of(drawn), size, self.interpolation, drawn['flip'])

    def _size(self, index: Any) -> int:
        """S of the views of an image."""
        if not self.milestones:
            return self.sizes[0]
        if not hasattr(index, 'epoch'):
            raise UserError(
                'TwoViews: milestones need the epoch, and the sampler, or a dataset around this '
                'one that is none of PyTorch or MMEngine, gives plain indices: write sampler=dict('
                "type='simclr_mm.ResumableSampler') in the dataloader, or a single size."
            )
        return self.sizes[bisect_right(self.milestones, index.epoch)]

    def _shape(self, img: np.ndarray, size: int) -> tuple[int, int, int, int]:
        """(V, C, S, S) of the views of an image."""
        return self.num_views, img.shape[2], size, size

    def _check_input(self, img: Any, as_in_file: bool = False) -> None:
        """Raise unless it is an image that every step can take."""
        check_image(img, 'TwoViews')
        kind = img.dtype, img.shape[2], as_in_file
        if kind in self._taken:
            return
        for step in sum(self.pipelines, []):
            name = type(step).__name__
            if as_in_file and getattr(step, 'of_colours', name in _FOR_COLOURS):
                raise UserError(
                    f'{name} needs BGR, and simclr_mm.LoadBands keeps the order of a file: write '
                    'simclr_mm.BandJitter, or load pictures with LoadImageFromFile.'
                )
            if isinstance(step, RandomTransform):
                step.check(img)
            elif name in _FOR_COLOURS and not is_bgr(img):
                raise UserError(
                    f'{name} needs 3 bands of uint8, BGR, and the image has {img.shape[2]} of '
                    f'{img.dtype}: write simclr_mm.BandJitter.'
                )
        self._taken.add(kind)

    def _check_view(self, img: np.ndarray, before: np.ndarray, view: int) -> None:
        check_image(img, f'TwoViews, after the transforms of view {view}')
        _check_alike(img, before, f'an image before and after the transforms of view {view}')
        if img.shape != before.shape:
            raise UserError(
                f'TwoViews: the transforms of view {view} made the image {img.shape[0]} x '
                f'{img.shape[1]} pixels: they must keep size, {before.shape[0]} x '
                f'{before.shape[1]}.'
            )


def _check_stages(size: int | Sequence[int], milestones: Sequence[int]) -> tuple[int, ...]:
    """The size of each stage."""
    sizes = tuple(size) if isinstance(size, (list, tuple)) else (size,)
    for each in sizes:
        check_size(each, 'TwoViews')
    rising = all(a < b for a, b in zip((0, *milestones), milestones))
    if not rising or len(milestones) != len(sizes) - 1:
        raise UserError(
            f'TwoViews: milestones must be rising numbers of epochs, one fewer than the sizes, got '
            f'size={size} with milestones={milestones}: write size=[16, 24, 32], '
            'milestones=[6, 11], or a single size without milestones.'
        )
    return sizes


def _check_alike(img: np.ndarray, other: np.ndarray, what: str) -> None:
    if (img.dtype, img.shape[2]) != (other.dtype, other.shape[2]):
        raise UserError(
            f'TwoViews: {what} must have one type and number of bands, got {img.dtype} of shape '
            f'{img.shape} and {other.dtype} of shape {other.shape}.'
        )


def _image_of(results: dict, v: int) -> np.ndarray:
    """The image that view v shows."""
    images = results.get('imgs')
    return results['img'] if images is None or images[v] is None else images[v]
