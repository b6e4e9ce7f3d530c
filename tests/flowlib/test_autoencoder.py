"""The autoencoder: shapes, the scale of latents, what a latent sees, and that it learns."""

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import mse_loss

from flowlib.autoencoder import Autoencoder


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def net(channels: int = 4, width: int = 8) -> Autoencoder:
    return Autoencoder(channels, width, generator=generator())


def pictures(n: int, side: int = 16) -> Tensor:
    """Smooth ones."""
    coarse = torch.rand(n, 3, 3, 3, generator=generator(n)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, side, mode="bilinear", align_corners=True)


def test_latents_are_a_quarter_as_wide_and_high():
    x = pictures(3, 32)[..., :24]
    z = net(5).encode(x)
    assert z.shape == (3, 5, 8, 6)
    assert net(5).decode(z).shape == x.shape


def test_latents_of_training_have_mean_zero_and_variance_one():
    autoencoder, x = net(), pictures(64)
    z = autoencoder.train().encode(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.var((0, 2, 3), correction=0), torch.ones(4), rtol=0, atol=1e-2)
    found = autoencoder.encoder(x).detach()
    for _ in range(600):  # the running averages, of momentum 0.01, forget where they began
        autoencoder.norm(found)
    later = autoencoder.eval().encode(x)
    torch.testing.assert_close(later, z, rtol=0.02, atol=0.02)
    torch.testing.assert_close(autoencoder.encode(x[:1]), later[:1])  # now each picture by itself


def test_noise_is_added_to_latents_alone():
    autoencoder, x = net().eval(), pictures(2)
    clean = autoencoder.decode(autoencoder.encode(x))
    torch.testing.assert_close(autoencoder(x), clean)
    drawn = torch.randn(2, 4, 4, 4, generator=generator(3))
    noisy = autoencoder(x, noise=0.5, generator=generator(3))
    torch.testing.assert_close(noisy, autoencoder.decode(autoencoder.encode(x) + 0.5 * drawn))


def test_shifting_the_picture_by_a_latents_side_shifts_the_latents():
    """Away from the borders: the encoder is the same everywhere."""
    autoencoder = net().double().eval()
    x = torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    x[:, :, 28:36, 28:36] = pictures(1, 8).double()
    z, moved = autoencoder.encode(x), autoencoder.encode(x.roll((4, 8), (2, 3)))
    torch.testing.assert_close(moved[..., 5:-3, 6:-2], z.roll((1, 2), (2, 3))[..., 5:-3, 6:-2])


def test_it_learns_to_reconstruct():
    autoencoder, x = net(width=16), pictures(32)
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=3e-3)
    before = mse_loss(autoencoder(x), x).item()
    for _ in range(60):
        optimizer.zero_grad()
        mse_loss(autoencoder(x), x).backward()
        optimizer.step()
    assert mse_loss(autoencoder(x), x).item() < 0.1 * before


def test_weights_come_from_the_generator_and_start_at_their_scale():
    first, again = net(width=32), net(width=32)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    x = torch.randn(8, 3, 32, 32, generator=generator(1))
    assert 0.3 < first.decoder(first.train().encode(x)).std().item() < 3


@pytest.mark.parametrize(
    ("match", "call"),
    [
        (r"pictures must have shape \(B, 3, H, W\)", lambda: net().encode(torch.zeros(3, 32, 32))),
        (r"latents must have shape \(B, 4, h, w\)", lambda: net().decode(torch.zeros(1, 3, 8, 8))),
        ("channels=0", lambda: net(0)),
        ("multiples of 4, got 30", lambda: net().encode(torch.zeros(1, 3, 30, 32))),
    ],
)
def test_bad_input_is_told_what_was_expected(match: str, call):
    with pytest.raises(ValueError, match=match):
        call()
