"""What a codec is trained on: every term as one number a picture.

Absolute and squared error fix colours, the edge term sharpens outlines, and two terms shape the latents
for the generator that comes later: a pull of their moments towards a unit Gaussian, and noise added before
decoding, so that the decoder forgives what a generator gets slightly wrong (and so that near latents mean
near pictures).  Each loss returns (B,), so that sums over any number of micro-batches are exact.

B batch, C latent channels, H W pixels, h w latent grid.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d


def absolute_error(restored: Tensor, pixels: Tensor) -> Tensor:
    """Mean absolute difference of pictures (B,3,H,W), as (B,)."""
    return (restored - pixels).abs().flatten(1).mean(1)


def squared_error(restored: Tensor, pixels: Tensor) -> Tensor:
    """Mean squared difference of pictures (B,3,H,W), as (B,)."""
    return (restored - pixels).square().flatten(1).mean(1)


def edge_error(restored: Tensor, pixels: Tensor) -> Tensor:
    """Mean absolute difference of the pictures' finite differences along rows and columns, as (B,)."""
    error = restored - pixels
    return sum(error.diff(dim=dim).abs().flatten(1).mean(1) for dim in (2, 3))


def pyramid_edge_error(restored: Tensor, pixels: Tensor, levels: int = 3) -> Tensor:
    """`edge_error` of pictures (B,3,H,W) at full, half, quarter ... size, averaged over `levels`, as (B,).

    Outlines count at every size, which is the part of how alike pictures look that needs no trained network.
    """
    error = restored - pixels  # every step from here is linear, so the difference may be taken first
    total = restored.new_zeros(len(restored))
    for level in range(levels):
        error = avg_pool2d(error, 2) if level else error
        total = total + edge_error(error, torch.zeros_like(error)) / levels
    return total


def moment_penalty(latents: Tensor) -> Tensor:
    """KL to the unit Gaussian of the Gaussian with each channel's moments, averaged over channels, as (B,).

    latents (B,C,h,w).  The moments are those of the whole batch, so all B entries are equal; zero exactly
    when every channel has mean 0 and variance 1.  Keeps the scale of a codec without a learned variance.
    """
    mean = latents.mean((0, 2, 3))
    variance = latents.var((0, 2, 3), unbiased=False) + 1e-6
    return (0.5 * (mean.square() + variance - 1 - variance.log())).mean().expand(latents.shape[0])


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL of N(mean, exp(log_variance)) from the unit Gaussian, mean over a picture's latents, as (B,).

    Kingma and Welling 2013, appendix B.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).mean(1)


def add_noise(latents: Tensor, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """Latents (B,C,h,w) plus Gaussian noise whose deviation is drawn for each picture from [0, sigma].

    Deviations are in units of each channel's own deviation over the batch (held fixed, so that the encoder
    cannot shrink the noise by growing its latents).
    """
    if sigma == 0:
        return latents
    deviation = latents.detach().float().std((0, 2, 3), unbiased=False)[None, :, None, None]
    draw = {"generator": generator, "device": latents.device}
    level = sigma * torch.rand(latents.shape[0], 1, 1, 1, **draw)
    return latents + (level * deviation * torch.randn(latents.shape, **draw)).to(latents.dtype)


def psnr(restored: Tensor, pixels: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture (B,3,H,W) in [-1, 1], as (B,); capped at 100."""
    return -10 * (squared_error(restored.float(), pixels.float()) / 4).clamp_min(1e-10).log10()
