from .report import plot_report, read_scalars

__all__ = ['plot_report', 'read_scalars']
