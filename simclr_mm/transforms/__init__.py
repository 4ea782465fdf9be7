from simclr_mm.errors import UnreadableImage

from .bands import BandDrop, BandJitter, BandNoise
from .blur import RandomGaussianBlur
from .color import ColorDistortion, ColorJitter, RandomGrayscale
from .crop import RandomCropAndFlip, ResizeEdge
from .geometric import RandomCutout, RandomGaussianNoise, RandomRotation, RandomSobel
from .load_bands import LoadBands
from .loading import LoadImageFromFile
from .views import TwoViews

__all__ = [
    'BandDrop',
    'BandJitter',
    'BandNoise',
    'ColorDistortion',
    'ColorJitter',
    'LoadBands',
    'LoadImageFromFile',
    'RandomCropAndFlip',
    'RandomCutout',
    'RandomGaussianBlur',
    'RandomGaussianNoise',
    'RandomGrayscale',
    'RandomRotation',
    'RandomSobel',
    'ResizeEdge',
    'TwoViews',
    'UnreadableImage',
]
