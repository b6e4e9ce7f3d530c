"""The U-Net as a field: what it starts as, what reaches its answer, and what it refuses."""

import pytest
import torch
from torch import Generator, nn

from flowlib.unet import UNet


def generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def drawn(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network with every parameter drawn: zero layers would hide mistakes."""
    g = generator(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=g))
    return net.double().eval()


def images(n: int = 3, side: int = 16, channels: int = 2) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=generator(1), dtype=torch.float64)


@pytest.mark.parametrize("patch", [1, 2])
def test_at_first_the_velocity_is_zero_and_the_loss_can_move_it(patch: int):
    net = UNet(2, (8, 16), patch=patch, classes=3, generator=generator(0))
    x = images().float()
    v = net(x, 0.5, label=torch.arange(3))
    assert torch.equal(v, torch.zeros_like(x))
    (v - x).square().mean().backward()
    assert net.leave.weight.grad.abs().max() > 0


def test_the_weights_come_from_the_generator():
    one, same, other = (UNet(1, (8, 8), classes=2, generator=generator(seed)) for seed in (0, 0, 1))
    pairs = [*zip(one.state_dict().values(), same.state_dict().values(), strict=True)]
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(one.enter.weight, other.enter.weight)


@pytest.mark.parametrize("patch", [1, 2])
def test_each_image_is_answered_by_itself_at_its_own_time_and_scale(patch: int):
    net = drawn(UNet(2, (8, 16), patch=patch, classes=3, scaled=True, generator=generator(0)))
    x, t, label = images(), torch.tensor([0.1, 0.5, 0.9]).double(), torch.tensor([2, 0, 3])
    scale = torch.tensor([1.0, 2.0, 4.0]).double()
    together = net(x, t, label=label, scale=scale)
    for i in range(3):
        alone = net(x[i : i + 1], float(t[i]), label=label[i : i + 1], scale=float(scale[i]))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-6, atol=1e-6)


def test_time_label_and_scale_each_change_the_answer():
    net = drawn(UNet(2, (8, 16), classes=3, scaled=True, generator=generator(0)))
    x, label = images(), torch.zeros(3, dtype=torch.long)
    base = net(x, 0.5, label=label, scale=1.0)
    for other in (
        net(x, 0.6, label=label, scale=1.0),
        net(x, 0.5, scale=1.0),
        net(x, 0.5, label=label, scale=2.0),
    ):
        assert (other - base).abs().max() > 1e-4


def test_no_label_is_the_null_label():
    net = drawn(UNet(2, (8, 16), classes=3, generator=generator(0)))
    x = images()
    assert torch.equal(net(x, 0.5), net(x, 0.5, label=torch.full((3,), 3)))


def test_at_first_a_scaled_network_is_the_teacher_at_every_scale():
    teacher = drawn(UNet(2, (8, 16), classes=3, generator=generator(0)))
    student = UNet(2, (8, 16), classes=3, scaled=True, generator=generator(0)).double()
    missing = student.load_state_dict(teacher.state_dict(), strict=False)
    assert {name.split(".")[0] for name in missing.missing_keys} == {"scale"}
    x, label = images(), torch.arange(3)
    for scale in (0.0, 1.0, 7.5):
        torch.testing.assert_close(student(x, 0.3, label=label, scale=scale), teacher(x, 0.3, label=label))


def test_every_pixel_sees_every_other():
    """The pyramid and its attention reach across the image, so one far corner moves the other."""
    net = drawn(UNet(1, (8, 16), patch=2, generator=generator(0)))
    x = images(1, 28, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, 0.5)[0, 0, 0, 0], x)
    assert gradient[0, 0, -1, -1].abs() > 0


def test_what_it_refuses():
    net = UNet(1, (8, 8), patch=2, classes=3, generator=generator(0))
    x = torch.zeros(2, 1, 8, 8)
    with pytest.raises(ValueError, match="multiples of 4, got \\(6, 8\\)"):
        net(torch.zeros(2, 1, 6, 8), 0.5)
    with pytest.raises(ValueError, match="from 0 to 3"):
        net(x, 0.5, label=torch.tensor([0, 4]))
    with pytest.raises(TypeError, match="label must be integers"):
        net(x, 0.5, label=torch.zeros(2))
    with pytest.raises(ValueError, match="takes no scale"):
        net(x, 0.5, scale=2.0)
    with pytest.raises(TypeError, match="needs scale="):
        UNet(1, (8, 8), scaled=True, generator=generator(0))(x, 0.5)
    with pytest.raises(ValueError, match="takes no label"):
        UNet(1, (8, 8), generator=generator(0))(x, 0.5, label=torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="multiples of 8"):
        UNet(1, (8, 12), generator=generator(0))
