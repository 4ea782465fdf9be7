"""Choose a recipe for a folder and a machine.

The numbers are those of the paper and of this package's configs for small images. Each has its
reason in words, which the user reads.
"""

from dataclasses import dataclass, replace

from simclr_mm.errors import UserError

from .surroundings import Machine, Pictures

_SIDES = (32, 64, 96, 128, 224)  # of views, in pixels
_MOST_EPOCHS = 500
_FEWEST_EPOCHS = 2
_GIB = 1 << 30


@dataclass(frozen=True)
class Choice:
    """A value and why it was chosen."""

    value: int | float | str | bool
    reason: str


@dataclass(frozen=True)
class Recipe:
    """Everything that is chosen, in the order in which it is printed."""

    view: Choice  # side in pixels
    backbone: Choice  # its settings, as in a config
    colours: Choice  # True, or False for grey images
    batch: Choice  # images
    images: Choice  # 'memory' or 'files'
    workers: Choice  # processes that read images
    epochs: Choice
    validated: bool = True  # False: an image cannot be read, and measuring leaves none out

    def lines(self) -> list[str]:
        """A line for each choice."""
        colours = 'crop, flip, ' + ('colour' if self.colours.value else 'brightness, contrast')
        blur = ', blur' if int(self.view.value) >= 96 else ''
        shown = (
            ('view', f'{self.view.value} px', self.view),
            ('backbone', f'dict({self.backbone.value})', self.backbone),
            ('augmentation', colours + blur, self.colours),
            ('batch', f'{self.batch.value} images', self.batch),
            ('images', f'from {self.images.value}', self.images),
            ('epochs', self.epochs.value, self.epochs),
        )
        return [f'{name:14}{value}: {choice.reason}' for name, value, choice in shown]


def choose(pictures: Pictures, machine: Machine, minutes: float) -> Recipe:
    """Choose everything but the number of epochs, which needs the time of a step.

    Raises:
        UserError: There are too few images.
    """
    count, cpu = pictures.number, machine.device == 'cpu'
    if count < 32:
        raise UserError(
            f'{pictures.root} holds {count} images: SimCLR compares images with each other, '
            'give 32 or more, better 500'
        )
    view = _view(pictures, cpu, minutes)
    side = int(view.value)
    fitting = max(16, 1 << (count // 4).bit_length() - 1)
    largest = 128 if cpu else _largest_batch(side, machine.gpu_memory)
    batch = Choice(min(fitting, largest), 'a quarter of the images at most')
    if largest <= fitting:
        batch = Choice(largest, f'what {"a CPU" if cpu else "this GPU"} does in good time')
    needed = count * kept_side(side) ** 2 * 3
    free = _GIB if machine.free_memory is None else machine.free_memory // 4
    if needed < free:
        images = Choice('memory', f'{needed / _GIB:.2f} GiB at {kept_side(side)} px, decoded once')
    else:
        images = Choice('files', f'{needed / _GIB:.1f} GiB would be too much of the memory')
    return Recipe(
        view=view,
        backbone=_backbone(side, count, cpu, minutes),
        colours=Choice(
            pictures.grey < 0.9, f'{pictures.grey:.0%} of the images looked at are grey'
        ),
        batch=batch,
        images=images,
        workers=Choice(
            min(machine.cores - 1, 1 if images.value == 'memory' else 8), 'a core is left'
        ),
        epochs=Choice(_FEWEST_EPOCHS, 'to be measured'),
    )


def read_from_files(recipe: Recipe, machine: Machine, reason: str) -> Recipe:
    """The recipe with images from files, for a folder that cannot be held in memory."""
    workers = Choice(min(machine.cores - 1, 8), 'a core is left')
    return replace(recipe, images=Choice('files', reason), workers=workers, validated=False)


def with_epochs(recipe: Recipe, count: int, minutes: float, step: float) -> Recipe:
    """The recipe with as many epochs as the time allows.

    Args:
        count: Images.
        step: Seconds of a training step, measured.

    Raises:
        UserError: The time is too short.
    """
    epoch = count // int(recipe.batch.value) * step
    epochs = int(minutes * 60 / epoch)
    if epochs < _FEWEST_EPOCHS:
        needed = 10 * epoch / 60
        raise UserError(
            f'an epoch takes {epoch / 60:.1f} minutes here, too long for --minutes {minutes:g}: '
            f'give --minutes {needed:.0f} for ten epochs, or a folder with fewer images'
        )
    reason = f'an epoch takes {epoch:.1f} s, and {minutes:g} minutes are there'
    if epochs > _MOST_EPOCHS:
        epochs, reason = _MOST_EPOCHS, 'more than these rarely help so few images'
    return replace(recipe, epochs=Choice(epochs, reason))


def _view(pictures: Pictures, cpu: bool, minutes: float) -> Choice:
    median = pictures.sides[1]
    most = (64 if minutes < 60 else 96) if cpu else (128 if minutes < 120 else 224)
    side = max((side for side in _SIDES if side <= min(median, most)), default=_SIDES[0])
    if median <= most:
        return Choice(side, f'the short side of half of the images is below {median + 1} px')
    return Choice(side, f'images have {median} px, {minutes:g} minutes on this device allow {side}')


def _backbone(side: int, count: int, cpu: bool, minutes: float) -> Choice:
    kind = 'ResNet_CIFAR' if side <= 32 or (side <= 64 and not cpu) else 'ResNet'
    if not cpu and count >= 50_000 and minutes >= 120:
        return Choice(f"type='{kind}', depth=50", 'many images and hours of a GPU')
    if not cpu:
        return Choice(f"type='{kind}', depth=18", 'fast, and enough for so many images or minutes')
    width = 16 if minutes < 10 else 32
    return Choice(
        f"type='{kind}', depth=18, stem_channels={width}, base_channels={width}",
        f'{width} of 64 channels, for a CPU',
    )


def _largest_batch(side: int, memory: int) -> int:
    """Images: two views of 224 px of a ResNet-50 in bf16 take 0.2 GiB or less."""
    fitting = int(memory / _GIB * 0.8 / (0.2 * (side / 224) ** 2))
    return max(32, min(512, 1 << fitting.bit_length() - 1))


def kept_side(side: int) -> int:
    """Short side of an image in memory: crops of its middle sizes lose nothing."""
    return side * 3 // 2
