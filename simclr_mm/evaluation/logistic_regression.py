"""Multinomial logistic regression by L-BFGS, quick for many features or penalties.

n and m examples, C feature width, K classes, r directions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor

from simclr_mm.errors import UserError

# L-BFGS stops at this largest slope, in coordinates with a curvature of at most about 1,
# or at this gain of a step in nats. At ten times these values, predictions for digits
# still differ from those of the exact minimum.
SLOPE, GAIN = 1e-5, 1e-11


class Fit(NamedTuple):
    """A fitted classifier."""

    weight: Tensor  # (K, C), for the features before standardisation
    bias: Tensor  # (K,)
    converged: bool  # False if the iterations ran out

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(m, C) features -> (m, K)."""
        x = torch.as_tensor(features).to(self.weight)
        return (x @ self.weight.T + self.bias).cpu().numpy()


class LogisticRegression:
    """Multinomial logistic regression on one set of features, for any L2 penalty.

    Features are standardised. The objective is that of scikit-learn's
    LogisticRegression with C = 1 / penalty: the sum of cross entropies plus penalty / 2
    times the squared weights, without the bias. For two classes it is C = 2 / penalty, because
    scikit-learn has one weight for both, the difference of the two here.

    L-BFGS needs a thousand steps for correlated features such as pixels. Here it works in
    coordinates in which the curvature at zero weights is the identity: the eigenvectors of
    the covariance, each scaled by its curvature. It finds the same minimum in tens of steps.
    Each fit starts from the previous one.

    Args:
        features: (n, C) float.
        labels: (n,) classes in [0, K).
        classes: K.
        device: Where to compute; for 'mps', which has no float64, the CPU. On a CPU, 50,000
            features of width 512 take 0.2 GB.
        iterations: Iterations of L-BFGS at most in one fit.

    Raises:
        UserError: Features are not finite in float32.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        classes: int,
        device: str | torch.device = 'cpu',
        iterations: int = 1000,
    ) -> None:
        self.iterations = iterations
        device = 'cpu' if torch.device(device).type == 'mps' else device
        self.labels = torch.as_tensor(labels, device=device)
        x = torch.as_tensor(features, dtype=torch.float32, device=device)
        self.mean = x.mean(dim=0)
        self.std = x.std(dim=0, correction=0)
        if not self.std.isfinite().all():
            raise UserError(
                'logistic regression: features are not finite in float32: leave such rows '
                'out, or divide the features by a number'
            )
        self.std[self.std <= 1e-6 * self.mean.abs()] = 1  # a constant feature
        x = (x - self.mean) / self.std
        self.directions, x, self.variance = _principal(x)  # (C, r), (n, r), (r,)
        self.x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)  # (n, r + 1)
        self.solution = torch.zeros(classes, x.shape[1] + 1, device=device)

    def fit(self, penalty: float) -> Fit:
        """Minimise the objective for one penalty > 0."""
        decay = torch.full_like(self.solution[0], penalty / len(self.x))  # (r + 1,)
        decay[-1] = 0
        curvature = torch.cat([self.variance, torch.ones_like(self.variance[:1])])
        scale = (curvature / len(self.solution) + decay).rsqrt()  # (r + 1,)

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            point = torch.from_numpy(flat).to(self.x).view_as(self.solution)
            loss, gradient = self._loss_and_gradient(scale * point, decay)
            return loss, (scale * gradient).double().cpu().numpy().ravel()

        # SciPy's threads would busy-wait next to PyTorch's, which is 25 times slower for
        # small problems on two cores.
        with threadpool_limits(1, user_api='blas'):
            found = minimize(
                objective,
                (self.solution / scale).double().cpu().numpy().ravel(),
                method='L-BFGS-B',
                jac=True,
                options=dict(maxiter=self.iterations, gtol=SLOPE, ftol=GAIN, maxcor=20),
            )
        self.solution = scale * torch.from_numpy(found.x).to(self.x).view_as(self.solution)
        weight = self.solution[:, :-1] @ self.directions.T / self.std  # (K, C)
        bias = self.solution[:, -1] - weight @ self.mean
        return Fit(weight, bias, converged=found.status != 1)

    def _loss_and_gradient(self, weight: Tensor, decay: Tensor) -> tuple[float, Tensor]:
        """Mean objective in nats at weights (K, r + 1), and its gradient there."""
        log_p = (self.x @ weight.T).log_softmax(dim=1)  # (n, K)
        rows = torch.arange(len(log_p), device=log_p.device)
        loss = -log_p[rows, self.labels].double().mean()
        loss += (decay * weight.square()).double().sum() / 2
        residual = log_p.exp_()
        residual[rows, self.labels] -= 1
        return float(loss), residual.T @ self.x / len(log_p) + decay * weight


def _principal(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Orthonormal directions (C, r) that span x, x in these coordinates, and its variances."""
    n, width = x.shape
    basis = None
    if n < width:  # the optimal weights are linear combinations of examples
        basis = torch.linalg.qr(x.T).Q  # (C, n)
        x = x @ basis  # (n, n)
    variance, directions = torch.linalg.eigh(x.T @ x / n)
    x = x @ directions
    if basis is not None:
        directions = basis @ directions
    return directions, x, variance.clamp(min=0)


def one_vs_rest(
    train: tuple[np.ndarray, np.ndarray],
    features: np.ndarray,
    penalties: Sequence[float],
    device: str | torch.device,
) -> tuple[list[np.ndarray], int]:
    """Scores of classifiers that each tell one class from all others.

    Args:
        train: (n, C) features, and (n, K) targets: 1 for the classes of an example, 0
            for others; -1 keeps the example out of the fit of this class.
        features: (m, C) to score.
        penalties: Of the squared weights, 1 / C of scikit-learn's binary LogisticRegression.

    Returns:
        (m, K) logits for each penalty, and the number of fits that did not converge.
    """
    scores = [np.empty((len(features), train[1].shape[1])) for _ in penalties]
    unconverged = 0
    for k, target in enumerate(train[1].T):
        known = target >= 0
        regression = LogisticRegression(train[0][known], target[known], 2, device)
        for row, penalty in enumerate(penalties):
            # The two classes get opposite weights, each half the binary weight. Together
            # their squares are half the binary square.
            fit = regression.fit(2 * penalty)
            unconverged += not fit.converged
            logits = fit.logits(features)  # (m, 2)
            scores[row][:, k] = logits[:, 1] - logits[:, 0]
    return scores, unconverged
