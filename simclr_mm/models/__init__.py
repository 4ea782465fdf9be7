from .contrastive_head import MarginTripletHead, NTLogisticHead, NTXentHead, UnnormalizedXentHead
from .distillation import Distillation
from .google_resnet import GoogleResNet
from .pooled import pooled
from .projection_neck import ProjectionNeck
from .simclr import SimCLR
from .small_resnets import LightlyResNet, SoloResNet
from .views_preprocessor import ViewsPreprocessor

__all__ = [
    'Distillation',
    'GoogleResNet',
    'LightlyResNet',
    'MarginTripletHead',
    'NTLogisticHead',
    'NTXentHead',
    'ProjectionNeck',
    'SimCLR',
    'SoloResNet',
    'UnnormalizedXentHead',
    'ViewsPreprocessor',
    'pooled',
]
