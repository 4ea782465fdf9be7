from .distillation import distillation
from .margin_triplet import margin_triplet, margin_triplet_with_stats
from .nt_logistic import nt_logistic, nt_logistic_with_stats
from .nt_xent import nt_xent, nt_xent_with_stats
from .unnormalized import unnormalized_xent, unnormalized_xent_with_stats

__all__ = [
    'distillation',
    'margin_triplet',
    'margin_triplet_with_stats',
    'nt_logistic',
    'nt_logistic_with_stats',
    'nt_xent',
    'nt_xent_with_stats',
    'unnormalized_xent',
    'unnormalized_xent_with_stats',
]
