from .loss import read_scalars
from .report import plot_report

__all__ = ['plot_report', 'read_scalars']
