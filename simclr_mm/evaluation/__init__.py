from .features import extract_features
from .knn import KNNAccuracy, knn_predict
from .linear_probe import Labelled, few_label_probe, linear_probe

__all__ = [
    'KNNAccuracy', 'Labelled', 'extract_features', 'few_label_probe', 'knn_predict',
    'linear_probe'
]
