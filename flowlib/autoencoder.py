"""A small autoencoder, so that a flow can live in its latents (chapter 10)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import silu

from flowlib import checks


class Autoencoder(nn.Module):
    """Pictures (B, 3, 4 h, 4 w), from -1 to 1, to latents (B, channels, h, w) of mean 0 and variance 1, and back.

        z = norm(encoder(x)),     x ~ decoder(z)

    The norm subtracts each channel's mean over the training pictures, and divides by the deviation: that sets the scale
    of the latents, for which Stable Diffusion has a factor of its own.

    Args:
        channels: of the latents.
        width: channels at half the pictures' size; twice as many at a quarter.
        generator: the source of the first weights.

    >>> autoencoder = Autoencoder(4, width=8, generator=torch.Generator().manual_seed(0))
    >>> autoencoder.encode(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(self, channels: int = 4, width: int = 32, *, generator: Generator | None = None) -> None:
        super().__init__()
        checks.whole(channels=channels, width=width)
        self.channels = channels
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),  # (B, 12, 2 h, 2 w)
            _SeededConv(12, width, 3, generator),
            _Residual(width, generator),
            nn.PixelUnshuffle(2),  # (B, 4 width, h, w)
            _SeededConv(4 * width, 2 * width, 1, generator),
            *(_Residual(2 * width, generator) for _ in range(2)),
            _SeededConv(2 * width, channels, 1, generator),
        )
        self.norm = nn.BatchNorm2d(channels, affine=False, momentum=0.01)
        self.decoder = nn.Sequential(
            _SeededConv(channels, 2 * width, 1, generator),
            *(_Residual(2 * width, generator) for _ in range(3)),
            _SeededConv(2 * width, 4 * width, 1, generator),
            nn.PixelShuffle(2),  # (B, width, 2 h, 2 w)
            *(_Residual(width, generator) for _ in range(2)),
            _SeededConv(width, 12, 3, generator),
            nn.PixelShuffle(2),
        )

    def encode(self, x: Tensor) -> Tensor:
        """Latents (B, channels, h, w) of pictures (B, 3, 4 h, 4 w)."""
        checks.shaped("pictures", x, "B", 3, "H", "W")
        if any(side % 4 for side in x.shape[2:]):
            raise ValueError(f"the sides of pictures must be multiples of 4, got {x.shape[2]} x {x.shape[3]}")
        return self.norm(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        """Pictures (B, 3, 4 h, 4 w) of latents (B, channels, h, w)."""
        checks.shaped("latents", z, "B", self.channels, "h", "w")
        return self.decoder(z)

    def forward(self, x: Tensor, *, noise: float = 0.0, generator: Generator | None = None) -> Tensor:
        """Pictures by way of their latents, to which noise of this deviation is added.

        A decoder that has seen noise forgives a flow its errors, and an encoder that must be heard through noise uses
        all of its latents' range, smoothly.
        """
        z = self.encode(x)
        if noise:
            z = z + noise * torch.randn(z.shape, generator=generator, device=z.device)
        return self.decode(z)


class _Residual(nn.Module):
    """x + conv(silu(conv(silu(x)))), at one width; what is added starts small."""

    def __init__(self, width: int, generator: Generator | None) -> None:
        super().__init__()
        self.first = _SeededConv(width, width, 3, generator)
        self.second = _SeededConv(width, width, 3, generator, gain=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Like x, (B, width, H, W)."""
        return x + self.second(silu(self.first(silu(x))))


class _SeededConv(nn.Conv2d):
    """A convolution that keeps height and width; its weights are drawn from N(0, gain^2 / inputs), its biases are 0."""

    def __init__(
        self, inputs: int, outputs: int, size: int, generator: Generator | None, *, gain: float = 1.0
    ) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2)
        device, deviation = generator.device if generator else None, gain * (inputs * size**2) ** -0.5
        with torch.no_grad():
            drawn = torch.randn(self.weight.shape, generator=generator, device=device)
            self.weight.copy_(deviation * drawn)
            self.bias.zero_()  # type: ignore[union-attr]

    def reset_parameters(self) -> None:
        """Nothing: torch's own would draw from the global generator."""
