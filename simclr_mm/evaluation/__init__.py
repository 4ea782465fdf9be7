from .class_metrics import CLASS_METRICS, MeanPerClass, VOC07MeanAP
from .features import extract_features
from .knn import KNNAccuracy, knn_predict
from .label_free import LabelFreeMetrics
from .linear_probe import (
    Labelled,
    few_label_probe,
    linear_predict,
    linear_probe,
    require_divisible,
    swept_linear_probe,
)
from .probe_accuracy import ProbeAccuracy
from .result import (
    CHECKPOINT,
    PIXELS,
    PRETRAINED,
    UNTRAINED,
    EvaluationRun,
    Result,
    Value,
    hardware,
    read_run,
)

__all__ = [
    'CHECKPOINT',
    'CLASS_METRICS',
    'VOC07MeanAP',
    'EvaluationRun',
    'KNNAccuracy',
    'LabelFreeMetrics',
    'Labelled',
    'MeanPerClass',
    'PIXELS',
    'PRETRAINED',
    'ProbeAccuracy',
    'Result',
    'UNTRAINED',
    'Value',
    'extract_features',
    'few_label_probe',
    'hardware',
    'knn_predict',
    'linear_predict',
    'linear_probe',
    'read_run',
    'require_divisible',
    'swept_linear_probe',
]
