from .arrays import CIFAR10, STL10, ArrayDataset, Digits
from .gallery_query import GalleryAndQuery, class_balanced_subset
from .image_folder import ImageFolder
from .sampler import ResumableSampler, SampleIndex
from .unreadable import ReplaceUnreadable

__all__ = [
    'ArrayDataset', 'CIFAR10', 'Digits', 'GalleryAndQuery', 'ImageFolder',
    'ReplaceUnreadable', 'ResumableSampler', 'STL10', 'SampleIndex',
    'class_balanced_subset'
]
