"""Distillation: a student learns the class probabilities of a teacher.

Letters: n images on this rank, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr_mm.errors import UserError

from .inputs import check_temperature
from .precision import full_float32


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross entropy of the student's soft predictions under the teacher's.

    With logits s and t of one image it is

        -tau^2 sum over k of softmax(t / tau)_k log softmax(s / tau)_k.

    The factor is for tau above 1, where it keeps the size of the gradient. That is tau (q - p) / n
    for the probabilities q of the student and p of the teacher, so below 1 it falls with tau.

    Source: SimCLRv2, arXiv:2006.10029, Sec. 2; the factor is that of the authors'
    colabs/distillation_self_training.ipynb, after Hinton et al., arXiv:1503.02531, Sec. 2.

    Args:
        student: (n, K) logits of any float dtype; computed in float32.
        teacher: (n, K) logits. They get no gradient.
        temperature: tau > 0, no unit. SimCLRv2 uses 0.1 for a student like the teacher and
            1 for a smaller one, and finds little difference between them.

    Returns:
        Scalar in nats, the mean over this rank's n images. It is not 0 but the teacher's
        entropy, times tau^2, if the student agrees.

    Raises:
        UserError: The shapes differ or are not (n, K), or temperature <= 0.
    """
    tau = check_temperature(temperature, 'uses 0.1 and 1', key='model.temperature')
    if student.ndim != 2 or student.shape != teacher.shape:
        raise UserError(
            f'student and teacher must give logits (n, K) of the same K classes, got '
            f'{tuple(student.shape)} and {tuple(teacher.shape)}: set model.head.num_classes'
        )
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    with full_float32(student.device):
        targets = (teacher.detach().to(dtype) / tau).softmax(dim=1)  # (n, K)
        return tau**2 * F.cross_entropy(student.to(dtype) / tau, targets)
