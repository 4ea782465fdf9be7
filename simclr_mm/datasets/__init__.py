from simclr_mm.class_balance import class_balanced_subset

from .array_dataset import ArrayDataset, collate
from .arrays import CIFAR10, CIFAR100, STL10, ArrayFile, Digits, InMemoryFolder, TinyImageNet
from .gallery_query import GalleryAndQuery
from .hugging_face import HuggingFaceImages
from .image_folder import ImageFolder
from .image_list import ImageList
from .label_subset import label_subset, stratified_subset
from .lmdb_images import LMDBImages
from .pack_index import class_names, shard_dataset
from .sampler import ResumableSampler, SampleIndex
from .tar_shards import TarShards
from .unreadable import ReplaceUnreadable

__all__ = [
    'ArrayDataset',
    'ArrayFile',
    'CIFAR10',
    'CIFAR100',
    'Digits',
    'InMemoryFolder',
    'TinyImageNet',
    'collate',
    'GalleryAndQuery',
    'HuggingFaceImages',
    'ImageFolder',
    'ImageList',
    'LMDBImages',
    'ReplaceUnreadable',
    'ResumableSampler',
    'STL10',
    'SampleIndex',
    'TarShards',
    'class_balanced_subset',
    'class_names',
    'label_subset',
    'shard_dataset',
    'stratified_subset',
]
