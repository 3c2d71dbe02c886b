"""A codec as the loop's trainee: pictures of the mixture, their reconstruction, and the shape of latents.

The mean and deviation of the latents are measured when the codec is saved, over pictures that training
does not read, and travel with it from then on.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unimodal.images import losses as terms
from unimodal.images.anchor import Anchor
from unimodal.images.codec import DiffusersCodec
from unimodal.images.discrete import DiscreteCodec
from unimodal.images.discriminator import PatchDiscriminator, balance, fooling, hinge, last_layer
from unimodal.images.perceptual import likeness
from unimodal.images.signal import to_pixels, to_signal
from unimodal.training.codec_pictures import PictureBatch, Pictures
from unimodal.training.trainee import Losses

if TYPE_CHECKING:
    from unimodal.training.codec import CodecModelSection

SAMPLED = 16  # pictures on a sheet
SAMPLES_START = 1_000_000_000  # rows far beyond those that training reads
LOOKS = 8  # forwards that a picture's part in the game costs: three looks, one of them at fixed weights


class CodecTrainee:
    """See `unimodal.training.trainee.Trainee`.

    weights        of every term that this codec has, by name
    discriminator  if there is one, trained with the codec as one module
    start          batches before the discriminator takes part
    anchor         what keeps the latents of known pictures, and with them the scale of all, where they were
    """

    def __init__(
        self,
        codec: DiffusersCodec | DiscreteCodec,
        pictures: Pictures,
        section: "CodecModelSection",
        weights: dict[str, float],
        discriminator: PatchDiscriminator | None = None,
        start: int = 0,
        anchor: Anchor | None = None,
    ) -> None:
        self.codec, self.pictures, self.section, self.weights = codec, pictures, section, weights
        self.discriminator, self.start, self.anchor = discriminator, start, anchor
        self.module: nn.Module = codec
        if discriminator is not None:
            self.module = nn.ModuleDict({"codec": codec, "discriminator": discriminator})
        self.likeness = likeness(section.image_size) if "perceptual" in weights else None
        # On a CPU convolutions run in this order of memory anyway; here they need not convert to it.
        self.module.to(memory_format=torch.channels_last)
        self._flops: dict[tuple[int, int], tuple[float, float]] = {}  # of a picture's forwards, by its size

    def batches(self, start_state: dict | None, rank: int, world: int) -> Iterator[PictureBatch]:
        """Pictures number rank, rank + world, ... in batches."""
        stream = self.pictures.from_number(start_state["next"] if start_state else rank, world)
        while True:
            numbers, ids, pictures = zip(*(next(stream) for _ in range(self.section.batch_size)))
            yield PictureBatch(np.stack(pictures), list(ids), {"next": numbers[-1] + world})

    def count(self, batch: PictureBatch) -> dict[str, float]:
        """Every term is a mean over pictures."""
        return dict.fromkeys(self.weights, float(len(batch.pictures)))

    def losses(self, batch: PictureBatch, generator: torch.Generator) -> Losses:
        """Sums over the batch's pictures of every term."""
        pixels = to_signal(batch.pictures, generator.device).contiguous(memory_format=torch.channels_last)
        latents, sums = (self._coded if self.codec.discrete else self._continuous)(pixels, generator)
        restored = self.codec.from_raw(latents).float()
        compared = {
            "absolute": terms.absolute_error(restored, pixels).sum(),
            "squared": terms.squared_error(restored, pixels).sum(),
            "edge": terms.edge_error(restored, pixels).sum(),
        }
        if self.likeness is not None:
            compared["perceptual"] = self.likeness(restored, pixels).sum()
        sums |= compared
        if self.discriminator is not None:
            total = sum(self.weights[name] * value for name, value in compared.items())
            sums |= self._game(pixels, restored, total)
        return Losses(sums, self.weights)

    def _continuous(self, pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Latents with noise, their pull to a unit Gaussian, and to where they were."""
        mean, log_variance = self.codec.posterior(pixels)
        latents = mean.float()
        if log_variance is None:
            pull = terms.moment_penalty(latents)
        else:
            pull = terms.gaussian_kl(latents, log_variance.float())
            noise = torch.randn(latents.shape, generator=generator, device=latents.device)
            latents = latents + noise * (0.5 * log_variance.float()).exp()
        sums = {"latents": pull.sum()}
        if self.anchor is not None:
            sums["anchor"] = self.anchor(mean.float(), pixels).sum()
        return terms.add_noise(latents, self.section.noise, generator), sums

    def _coded(self, pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Latents of the nearest codes, and the quantizer's own terms."""
        if not self.section.train_encoder:
            with torch.no_grad():
                return self.codec.to_raw(pixels), {}
        latents, _, found = self.codec.quantizer(self.codec.unquantized(pixels))
        return latents, {name: value * len(pixels) for name, value in found.items()}

    def _game(self, pixels: Tensor, restored: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        """The codec's and the discriminator's losses, zero before the game begins."""
        begun = self._begun()
        if self.module.training:
            self.discriminator.batches += 1
        if not begun:
            return {"adversarial": restored.new_zeros(()), "discriminator": restored.new_zeros(())}
        fooled = fooling(self.discriminator, restored).sum()
        scale = balance(reconstruction, fooled, last_layer(self.codec.network))
        caught = hinge(self.discriminator, pixels, restored).sum()
        return {"adversarial": scale * fooled, "discriminator": caught}

    def _begun(self) -> bool:
        return self.discriminator is not None and int(self.discriminator.batches) >= self.start

    def flops(self, batch: PictureBatch) -> float:
        """Three forwards, as torch counts convolutions and products, and those of the anchor and the game."""
        size = batch.pictures.shape[1:3]
        if size not in self._flops:
            self._flops[size] = self._count_flops(size)
        codec, look = self._flops[size]
        passes = 3 + (self.anchor is not None)
        return len(batch.pictures) * (passes * codec + (LOOKS * look if self._begun() else 0.0))

    @torch.no_grad()
    def _count_flops(self, size: tuple[int, int]) -> tuple[float, float]:
        """Of one picture's way through the codec (the search for codes left out), and of a look at it."""
        picture = torch.zeros(1, 3, *size, device=next(self.module.parameters()).device)
        with FlopCounterMode(display=False) as codec:
            encode = self.codec.unquantized if self.codec.discrete else self.codec.to_raw
            self.codec.from_raw(encode(picture))
        with FlopCounterMode(display=False) as look:
            if self.discriminator is not None:
                self.discriminator(picture)
        return float(codec.get_total_flops()), float(look.get_total_flops())

    def samples(self, seed: int) -> Image.Image:
        """Pictures that training does not read, each over its reconstruction, eight pairs a row."""
        stream = self.pictures.from_number(SAMPLES_START + seed * SAMPLED)
        originals = np.stack([next(stream)[2] for _ in range(SAMPLED)])
        device = next(self.module.parameters()).device
        with torch.no_grad():
            again = self.codec.from_raw(self.codec.to_raw(to_signal(originals, device)))
        restored = to_pixels(again.clamp(-1, 1))
        half = SAMPLED // 2
        rows = [np.hstack(list(p[i : i + half])) for i in (0, half) for p in (originals, restored)]
        return Image.fromarray(np.vstack(rows))

    def save(self, folder: Path, module: nn.Module) -> None:
        """Measure the latents, unless they are to stay, and write the codec folder."""
        codec = module if self.discriminator is None else module["codec"]
        if self.section.train_encoder and self.anchor is None:
            codec.measure(self._fresh(next(codec.parameters()).device))
        codec.save(folder)

    def _fresh(self, device: torch.device) -> Iterator[Tensor]:
        """`measured` pictures of the data alone, in batches, from beyond those of training and of samples."""
        stream = replace(self.pictures, share=0.0).from_number(2 * SAMPLES_START)
        left = self.section.measured
        while left:
            size = min(64, left)
            yield to_signal(np.stack([next(stream)[2] for _ in range(size)]), device)
            left -= size
