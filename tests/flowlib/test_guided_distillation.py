"""Distilled guidance: its loss is zero at the guided field alone, and measures how far another is."""

import pytest
import torch
from torch import Generator, Tensor

from flowlib.guided_distillation import guided_distillation_loss


def teacher(x: Tensor, t: Tensor, *, y: Tensor) -> Tensor:
    return y[:, None] * x.cos() + t[:, None]


def loss(student, n: int = 64) -> Tensor:
    g = Generator().manual_seed(0)
    x_1, y = torch.randn(n, 3, generator=g), 1 + torch.arange(n) % 3
    w = 4 * torch.rand(n, generator=g)
    return guided_distillation_loss(
        student, teacher, x_1, w, cond={"y": y}, null={"y": torch.zeros_like(y)}, generator=g
    )


def test_it_is_zero_at_the_guided_field():
    """Here u = t and c = y cos x + t, so that u + w (c - u) = w y cos x + t."""
    assert float(loss(lambda x, t, *, y, scale: (scale * y)[:, None] * x.cos() + t[:, None])) < 1e-10


def test_it_is_the_mean_square_of_what_is_added():
    off = loss(lambda x, t, *, y, scale: (scale * y)[:, None] * x.cos() + t[:, None] + 0.5)
    torch.testing.assert_close(off, torch.tensor(0.25))


def test_a_student_that_takes_the_other_convention_of_the_scale_is_caught():
    """Where w = 0 says conditional, c + w (c - u), the scale is one too high."""
    assert float(loss(lambda x, t, *, y, scale: ((1 + scale) * y)[:, None] * x.cos() + t[:, None])) > 0.5


def test_the_teacher_is_called_once_and_gets_no_gradient():
    weight, calls = torch.ones((), requires_grad=True), []

    def taught(x: Tensor, t: Tensor, *, y: Tensor) -> Tensor:
        calls.append(len(x))
        return weight * teacher(x, t, y=y)

    x_1, y, w = torch.randn(4, 3, generator=Generator().manual_seed(0)), torch.ones(4), torch.ones(4)
    student = torch.zeros((), requires_grad=True)
    value = guided_distillation_loss(
        lambda x, t, *, y, scale: student * x, taught, x_1, w, cond={"y": y}, null={"y": 0 * y},
        generator=Generator().manual_seed(0),
    )  # fmt: skip
    value.backward()
    assert calls == [8] and weight.grad is None and student.grad is not None


def test_what_it_refuses():
    x_1, y = torch.zeros(4, 3), torch.ones(4)
    with pytest.raises(ValueError, match=r"scale must have shape \(4,\)"):
        guided_distillation_loss(teacher, teacher, x_1, torch.ones(3), cond={"y": y}, null={"y": y})
    with pytest.raises(ValueError, match="same names"):
        guided_distillation_loss(teacher, teacher, x_1, torch.ones(4), cond={"y": y}, null={"z": y})
