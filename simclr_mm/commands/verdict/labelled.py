"""The labelled images of a verdict, and the features that are compared on them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log

from simclr_mm.apis import load_encoder
from simclr_mm.apis.encoder import Encoder
from simclr_mm.apis.loading import Checkpoint, encoder_of_checkpoint
from simclr_mm.apis.model_zoo import register
from simclr_mm.checkpoints import meta_of
from simclr_mm.checkpoints.foreign.weights import read_weights
from simclr_mm.class_balance import draw_of_each_class
from simclr_mm.commands.command_line import build_dataset
from simclr_mm.commands.command_line.data_folder import class_folders, gallery_and_query
from simclr_mm.commands.convert.conversion import convert
from simclr_mm.commands.evaluate.feature_table import untrained_encoder
from simclr_mm.commands.evaluate.image_features import gallery_and_queries, small_pixels
from simclr_mm.datasets.gallery_query import labels_of
from simclr_mm.datasets.image_folder import class_names_of
from simclr_mm.errors import UserError, listed
from simclr_mm.evaluation import PIXELS, PRETRAINED, UNTRAINED, Labelled
from simclr_mm.files.storage import file_name
from simclr_mm.files.walk import printable
from simclr_mm.registry import type_name
from simclr_mm.transforms.loading import LOADING_STEPS

TEST_SHARE = 0.5  # of each class, where nothing divides the images
_TEST = {'val', 'test'}  # folders of test images beside train


def parts_of(
    folder: str, test_share: float | None, seed: int, loading: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], str]:
    """``gallery`` and ``query`` for a GalleryAndQuery, and in words where they come from.

    They are ``folder/train`` and ``folder/{val,test}`` where both exist. Otherwise the
    classes are the folders in ``folder``, and ``test_share`` of each class is drawn for
    testing, by default half.
    The loading step says which files are images.

    Raises:
        UserError: A class has fewer than two images to divide, there is one class, or there is a
            ``test_share`` of images that are divided already.
    """
    settings = class_folders(folder)
    parts = set(class_names_of(folder))
    if 'train' in parts and (parts & _TEST or len(parts) == 1):
        gallery, query = gallery_and_query('--data', Path(folder))
        if test_share is not None:
            raise UserError(
                f'--test-share divides classes, but {folder} has test images: leave it out'
            )
        places = [printable(str(each.get('data_root', folder))) for each in (gallery, query)]
        others = parts - {'train', *(Path(place).name for place in places)}
        left = f'; not used: {printable(listed(sorted(others)))}' if others else ''
        text = f'images to learn from: {places[0]}; test images: {places[1]}{left}'
        return dict(gallery=gallery, query=query), text
    dataset = build_dataset(dict(settings, pipeline=[loading]))
    labels = labels_of(dataset, f'--data {folder}')
    found, counts = np.unique(labels, return_counts=True)
    if len(found) < 2:
        raise UserError(
            f'--data {folder}: its images have one class, and a verdict needs two to tell apart'
        )
    if counts.min() < 2:
        names = dataset.metainfo.get('classes') or found
        few = names[found[counts.argmin()]]
        raise UserError(
            f'--data {folder}: class {few} has one image, and the split into training and test '
            'needs two: add images or take the class out.'
        )
    test_share = test_share or TEST_SHARE
    test = draw_of_each_class(labels, lambda n: min(n - 1, max(1, round(test_share * n))), seed)
    train = np.setdiff1d(np.arange(len(labels)), test)
    divided = {
        name: dict(settings, indices=rows.tolist())
        for name, rows in (('gallery', train), ('query', test))
    }
    return divided, (
        f'{printable(folder)} has no train/ and test/: {len(test)} of its {len(labels)} images, '
        f'{100 * test_share:g} % of each class by seed {seed}, are test images'
    )


def all_features(
    ours: Encoder,
    against: list[str],
    parts: dict[str, dict[str, Any]],
    cache: Path | None,
    workers: int,
) -> dict[str, tuple[Labelled, Labelled]]:
    """Features of gallery and queries: ours first, untrained, raw pixels, then of each file.

    Raw pixels of more than 32 x 32 are averaged to that.
    """
    device = next(ours.model.parameters()).device
    ends = ['/'.join(Path(place).parts[-2:]) for place in against]
    names = ends if len(set(ends)) == len(ends) else against
    # All files are read first, so that a mistake costs no time.
    others = {name: _encoder_of(place, device) for name, place in zip(names, against)}
    for name, encoder in {ours.source: ours, **others}.items():
        if encoder.stays_rgb:
            raise UserError(
                f'{name}: its config has RGB images in memory, and takes them as they are, but '
                'files are read as BGR: write data_preprocessor.to_rgb=True into a copy of its '
                'config, and name that'
            )
    for name, encoder in others.items():
        if encoder.loading_step != ours.loading_step:
            raise UserError(
                f'--against {name}: it reads images by {encoder.loading_step}, the checkpoint by '
                f'{ours.loading_step}: they would see other images, so no verdict compares them'
            )
    loader = _loader(ours, parts, workers)
    found = {PRETRAINED: gallery_and_queries(ours, loader, cache)}
    found[UNTRAINED] = gallery_and_queries(untrained_encoder(ours.config, device), loader, cache)
    found[PIXELS] = gallery_and_queries(ours, loader, embed=small_pixels)
    for name, encoder in others.items():
        found[name] = gallery_and_queries(encoder, _loader(encoder, parts, workers), cache)
    return found


def _encoder_of(place: str, device: torch.device) -> Encoder:
    """The encoder of a checkpoint of ours or of another library, or of CONFIG=FILE."""
    config, equals, file = place.partition('=')
    if equals and not Path(place).exists():
        return load_encoder(file, config, device)
    if place.lower() in register():
        return load_encoder(place, device=device)
    content = read_weights(place)
    if 'cfg' in meta_of(content):
        return load_encoder(place, device=device)
    converted = convert(place)
    print_log(
        f'{printable(place)}: keys of {converted.layout}, images as that library prepares them: '
        f'{dict(converted.config.model.backbone)}',
        'current',
    )
    name = Path(file_name(place)).stem
    checkpoint = Checkpoint(converted.checkpoint, converted.config, name, place)
    return encoder_of_checkpoint(checkpoint, device, only_backbone=True)


def _loader(encoder: Encoder, parts: dict[str, dict[str, Any]], workers: int) -> dict[str, Any]:
    """A dataloader of both parts, with the encoder's own transforms."""
    if encoder.pipeline is None:
        raise UserError(
            f'{encoder.source}: its config has no test_dataloader, so it is not known how to '
            'prepare an image: name another config'
        )
    steps = [dict(step) for step in encoder.pipeline if type_name(step) not in LOADING_STEPS]
    pipeline = [encoder.loading_step, *steps]
    return dict(
        batch_size=64,
        num_workers=workers,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dict(type='simclr_mm.GalleryAndQuery', pipeline=pipeline, **parts),
    )
