"""The Python API."""

from .encoder import Encoder
from .inference import FeatureInferencer, inference_model
from .loading import build_encoder, get_model, load_encoder
from .model_zoo import list_models
from .simclr_encoder import SimCLREncoder

__all__ = [
    'Encoder',
    'FeatureInferencer',
    'SimCLREncoder',
    'build_encoder',
    'get_model',
    'inference_model',
    'list_models',
    'load_encoder',
]
