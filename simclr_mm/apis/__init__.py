"""The Python API."""

from .encoder import Encoder, get_model, load_encoder
from .inference import FeatureInferencer, inference_model
from .model_zoo import list_models

__all__ = [
    'Encoder',
    'FeatureInferencer',
    'get_model',
    'inference_model',
    'list_models',
    'load_encoder',
]
