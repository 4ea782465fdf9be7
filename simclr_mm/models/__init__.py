from .contrastive_head import NTXentHead
from .projection_neck import ProjectionNeck
from .simclr import SimCLR
from .views_preprocessor import ViewsPreprocessor

__all__ = ['NTXentHead', 'ProjectionNeck', 'SimCLR', 'ViewsPreprocessor']
