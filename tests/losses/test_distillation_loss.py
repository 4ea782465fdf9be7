"""The distillation loss against the paper's formula in NumPy."""

import math

import numpy as np
import pytest
import torch

from simclr_mm.losses import distillation


def logits(n=6, classes=5, seed=0, scale=3.0):
    return scale * np.random.default_rng(seed).normal(size=(n, classes))


def softmax(row):
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def naive(student, teacher, tau):
    """SimCLRv2's formula image by image, and its gradient, in float64."""
    losses, gradient = [], np.zeros_like(student)
    for i, (s, t) in enumerate(zip(student, teacher)):
        p, q = softmax(t / tau), softmax(s / tau)
        losses.append(-(tau**2) * sum(p[k] * math.log(q[k]) for k in range(len(p))))
        gradient[i] = tau * (q - p) / len(student)
    return np.mean(losses), gradient


@pytest.mark.parametrize('tau', [0.5, 1, 4])
def test_equals_the_formula(tau):
    s, t = logits(seed=1), logits(seed=2)
    student = torch.tensor(s, requires_grad=True)
    teacher = torch.tensor(t, requires_grad=True)
    loss = distillation(student, teacher, tau)
    loss.backward()
    value, gradient = naive(s, t, tau)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(student.grad, gradient, atol=1e-14)
    assert teacher.grad is None


def test_float32_gradient_is_that_of_float64():
    s, t = logits(64, 10, seed=3), logits(64, 10, seed=4)
    student = torch.tensor(s, dtype=torch.float32, requires_grad=True)
    distillation(student, torch.tensor(t, dtype=torch.float32), 0.1).backward()
    gradient = naive(s, t, 0.1)[1]
    assert np.abs(student.grad.numpy() - gradient).max() < 1e-5 * np.abs(gradient).max()


def test_the_gradient_of_small_differences_does_not_depend_on_the_temperature():
    """Which is what tau^2 is for: at a high temperature it is (s - t) / (nK), centred."""
    s, t = logits(seed=5, scale=1e-3), logits(seed=6, scale=1e-3)
    expected = s - t - (s - t).mean(axis=1, keepdims=True)
    for tau in (1, 10):
        student = torch.tensor(s, requires_grad=True)
        distillation(student, torch.tensor(t), tau).backward()
        np.testing.assert_allclose(student.grad, expected / s.size, rtol=0.01, atol=1e-7)


def test_the_least_value_is_the_entropy_of_the_teacher():
    t = logits(1)
    p = softmax(t[0] / 2)
    loss = distillation(torch.tensor(t), torch.tensor(t), 2)
    assert loss.item() == pytest.approx(-4 * (p * np.log(p)).sum(), rel=1e-12)


def test_half_precision_is_computed_in_float32():
    s, t = (torch.tensor(logits(seed=seed)).bfloat16() for seed in (7, 8))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = distillation(s, t, 0.1)
    assert loss.dtype == torch.float32
    assert loss.equal(distillation(s.float(), t.float(), 0.1))


@pytest.mark.parametrize(
    'student, teacher, tau, message',
    [
        (torch.ones(4, 5), torch.ones(4, 6), 1, r'\(4, 5\) and \(4, 6\): set model.head'),
        (torch.ones(4), torch.ones(4), 1, r'\(n, K\)'),
        (torch.ones(4, 5), torch.ones(4, 5), 0, 'set model.temperature'),
    ],
)
def test_bad_input(student, teacher, tau, message):
    with pytest.raises(ValueError, match=message):
        distillation(student, teacher, tau)
