from .margin_triplet import margin_triplet
from .nt_logistic import nt_logistic
from .nt_xent import nt_xent
from .unnormalized import unnormalized_xent

__all__ = ['margin_triplet', 'nt_logistic', 'nt_xent', 'unnormalized_xent']
