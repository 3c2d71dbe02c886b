"""Codecs: pictures <-> latents whose channels have mean 0 and deviation 1, or codes (see discrete.py).

A codec folder is a diffusers autoencoder folder (config.json and safetensors) with a codec.json beside it
that holds the measured mean and deviation of each channel, so that everything behind the codec works in
one scale.  Latents are deterministic: of a variational autoencoder they are the mean.

B batch, C latent channels, H W pixels, h w latent grid.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from unimodal.errors import UserError
from unimodal.images import autoencoders

CODEC_FILE = "codec.json"


class Codec(nn.Module, ABC):
    """What every codec does.  A subclass gives `to_raw`, `from_raw` and `save_network`.

    stride    pixels per cell along a side
    channels  C
    discrete  whether `encode` gives codes, integers, rather than latents
    """

    discrete = False
    mean: Tensor  # (C,)
    std: Tensor  # (C,)

    def __init__(self, stride: int, channels: int) -> None:
        super().__init__()
        self.stride, self.channels = stride, channels
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    @abstractmethod
    def to_raw(self, pixels: Tensor) -> Tensor:
        """Pixels (B,3,H,W) in [-1, 1] -> latents (B,C,h,w) in the network's own scale."""

    @abstractmethod
    def from_raw(self, latents: Tensor) -> Tensor:
        """Latents (B,C,h,w) in the network's own scale -> pixels (B,3,H,W), not clamped."""

    @abstractmethod
    def save_network(self, folder: Path) -> dict:
        """Write the weights, if any, and return what codec.json must say besides the normalisation."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B,3,H,W) in [-1, 1] -> latents (B,C,H/stride,W/stride), mean 0 and std 1 a channel.

        Raises UserError if a side is no multiple of the stride: a picture is never cut or padded here.
        """
        self.check_sides(pixels)
        return (self.to_raw(pixels) - self.mean[:, None, None]) / self.std[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        """What `encode` gives -> pixels (B,3,H,W), clamped to [-1, 1]."""
        return self.decode_latents(latents)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents (B,C,h,w), be they of a codec with codes or not -> pixels (B,3,H,W) in [-1, 1]."""
        return self.restore(latents).clamp(-1, 1)

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """Pixels (B,3,H,W) -> the pixels that are left of them after encoding and decoding."""
        return self.decode(self.encode(pixels))

    def check_sides(self, pixels: Tensor) -> None:
        """Raise UserError if a side of pictures (B,3,H,W) is no multiple of the stride."""
        height, width = pixels.shape[-2:]
        if height % self.stride or width % self.stride:
            raise UserError(
                f"a picture of {height}x{width} pixels does not fit a codec of stride {self.stride}; "
                f"expected sides that are multiples of {self.stride}. Scale it (unimodal.data.pictures.fit)."
            )

    def restore(self, latents: Tensor) -> Tensor:
        """`decode_latents` without its clamp, which stops gradients: what training compares to pictures."""
        return self.from_raw(latents * self.std[:, None, None] + self.mean[:, None, None])

    @torch.no_grad()
    def measure(self, pictures: Iterable[Tensor]) -> None:
        """Set mean and std to those of the raw latents of batches of pictures (B,3,H,W)."""
        count, total, squares = 0, 0.0, 0.0
        training = self.training
        self.eval()
        for pixels in pictures:
            raw = self.to_raw(pixels).double()
            count += raw.numel() // self.channels
            total = total + raw.sum((0, 2, 3))
            squares = squares + raw.square().sum((0, 2, 3))
        self.train(training)
        if not count:
            raise ValueError("no pictures to measure the latents of")
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        self.mean.copy_(mean)
        # A channel that never changes is left as it is rather than blown up.
        self.std.copy_(torch.where(variance > 1e-12, variance.sqrt(), 1.0))

    def save(self, folder: Path | str) -> None:
        """Write a folder that `load_codec` reads."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        entries = self.save_network(folder)
        entries |= {"mean": self.mean.double().tolist(), "std": self.std.double().tolist()}
        (folder / CODEC_FILE).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


class DiffusersCodec(Codec):
    """A continuous autoencoder in diffusers' format: AutoencoderKL, AutoencoderDC, ...

    config  what config.json says, `_class_name` included
    fold    squares of fold x fold pixels become the channels of one pixel before the network sees them
            (and back after it), which spares small networks their costliest, full-resolution stage

    Raises UserError if no such network exists.
    """

    def __init__(self, config: dict, fold: int = 1) -> None:
        stride, channels = autoencoders.stride_and_channels(config)
        super().__init__(stride * fold, channels)
        self.config, self.fold = config, fold
        check_fold(config, fold)
        self.network = autoencoders.build(config)
        mean, std = autoencoders.declared_scale(config)
        self.mean.copy_(torch.as_tensor(mean))
        self.std.copy_(torch.as_tensor(std))

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance (B,C,h,w) of the raw latents; None where the network has no variance."""
        return autoencoders.encode(self.network, pixel_unshuffle(pixels, self.fold))

    def to_raw(self, pixels: Tensor) -> Tensor:
        """See Codec; the mean of the posterior."""
        return self.posterior(pixels)[0]

    def from_raw(self, latents: Tensor) -> Tensor:
        """See Codec."""
        return pixel_shuffle(autoencoders.decode(self.network, latents), self.fold)

    def save_network(self, folder: Path) -> dict:
        """config.json and diffusion_pytorch_model.safetensors, as diffusers reads them."""
        autoencoders.save(self.network, self.config, folder)
        return {"class": "DiffusersCodec", "fold": self.fold}


def check_fold(config: dict, fold: int) -> None:
    """Raise UserError unless a network of this configuration takes squares of fold x fold pixels."""
    if fold < 1 or config.get("in_channels", 3) != 3 * fold**2:
        raise UserError(
            f"in_channels = {config.get('in_channels', 3)} and fold = {fold} do not go together: "
            f"expected in_channels = {3 * fold**2}, the colours of {fold}x{fold} pixels."
        )


class PixelPatches(Codec):
    """No compression at all: a cell is the raw pixels of a square, C = 3 stride^2.  Exact."""

    def __init__(self, stride: int = 8) -> None:
        super().__init__(stride, 3 * stride**2)

    def to_raw(self, pixels: Tensor) -> Tensor:
        """See Codec; space to depth."""
        return pixel_unshuffle(pixels, self.stride)

    def from_raw(self, latents: Tensor) -> Tensor:
        """See Codec; depth to space."""
        return pixel_shuffle(latents, self.stride)

    def save_network(self, folder: Path) -> dict:
        """Nothing but the stride."""
        return {"class": "PixelPatches", "stride": self.stride}
