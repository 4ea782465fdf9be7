"""Compare our decoding of image files with Pillow's, on Pillow's own test images.

    pip download --no-deps --no-binary pillow pillow==VERSION -d DIR
    python tools/benchmarks/compare_decoders.py DIR/pillow-VERSION.tar.gz

VERSION is that of the installed Pillow. Its result is ``exif_transpose(image).convert('RGB')``,
with transparency on white.
"""

import io
import re
import sys
import tarfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from simclr_mm.commands.command_line import parser_of
from simclr_mm.errors import UnreadableImage
from simclr_mm.transforms import LoadImageFromFile

LEVELS = 2  # of 255: allowed rounding difference of two JPEG decoders
# Images that docs/your_own_images.md refuses and Pillow accepts.
DOCUMENTED = re.compile('format that is not read|signed|floating-point|numbers of 32 bits|bands')


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument('archive', type=Path, help="Pillow's source distribution")
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    answers = {name: compare(name, content) for name, content in images(args.archive)}
    for name, (answer, detail) in sorted(answers.items(), key=lambda item: item[1]):
        if answer not in ('same', 'refused by both', 'refused as documented'):
            print(f'{answer:22} {name:50} {detail}')
    for answer, number in Counter(answer for answer, _ in answers.values()).most_common():
        print(f'{number:5} {answer}')
    if {'differs', 'refused by us'} & {answer for answer, _ in answers.values()}:
        sys.exit('Some files are read differently from Pillow without a documented reason.')


def images(archive: Path):
    """Names and contents of the test images."""
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, name = member.name.partition('/Tests/images/')
            if name and member.isfile():
                yield name, tar.extractfile(member).read()


def compare(name: str, content: bytes) -> tuple[str, str]:
    """Same, differs, or refused by whom, with a reason."""
    theirs, mode, their_reason = by_pillow(content)
    try:
        ours = LoadImageFromFile()(dict(img_path=name, img_bytes=content))['img'][..., ::-1]
    except UnreadableImage as error:
        reason = str(error).removeprefix(f'{name}: ')
        if theirs is None:
            return 'refused by both', their_reason
        return 'refused as documented' if DOCUMENTED.search(reason) else 'refused by us', reason
    if theirs is None:
        return 'refused by Pillow', their_reason
    if ours.shape != theirs.shape:
        return 'differs', f'shape {ours.shape}, Pillow {theirs.shape}'
    most = int(np.abs(ours.astype(int) - theirs).max(initial=0))
    if most <= LEVELS:
        return 'same', ''
    if mode.startswith('I'):
        return 'differs as documented', f'{most} levels: 9 to 16 bits, which Pillow cuts at 255'
    return 'differs', f'{most} levels'


def by_pillow(content: bytes) -> tuple[np.ndarray | None, str, str]:
    """Pillow's RGB or None, the image's mode, and the reason for None."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            image = ImageOps.exif_transpose(image)
            mode = image.mode
            if image.has_transparency_data:
                rgba = image.convert('RGBA')
                white = Image.new('RGBA', rgba.size, 'white')
                image = Image.alpha_composite(white, rgba)
            return np.asarray(image.convert('RGB')), mode, ''
    except Exception as error:
        return None, '', f'{type(error).__name__}: {error}'


if __name__ == '__main__':
    main()
