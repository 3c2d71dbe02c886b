"""A codec as the loop's trainee: pictures of the mixture, their reconstruction, and the shape of latents.

The mean and deviation of the latents are measured when the codec is saved, over pictures that training
does not read, and travel with it from then on.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unimodal.data.mixture import Mixture
from unimodal.errors import UserError
from unimodal.images import losses as terms
from unimodal.images.autoencoders import check_arguments
from unimodal.images.clutter import clutter
from unimodal.images.codec import DiffusersCodec, load_codec
from unimodal.images.signal import to_signal
from unimodal.training.config import Recipe, Section
from unimodal.training.trainee import Losses

SAMPLED = 16  # pictures on a sheet
SAMPLES_START = 1_000_000_000  # rows far beyond those that training reads
WITHOUT_PICTURES = 1000  # rows in a row after which a mixture counts as having no pictures


class CodecLosses(Section):
    """Weights of the terms of `unimodal.images.losses`."""

    absolute: float = Field(1.0, ge=0)
    squared: float = Field(1.0, ge=0)
    edge: float = Field(0.5, ge=0)
    latents: float = Field(
        0.01, ge=0
    )  # pull to a unit Gaussian: of the posterior if there is one, or moments


class CodecModelSection(Section):
    """A codec: its network in diffusers' terms, and what it is trained on."""

    kind: Literal["codec"]
    init_from: str | None = None  # a codec to go on from; its network then is the network
    class_name: Literal["AutoencoderDC", "AutoencoderKL", "AutoencoderTiny"] = "AutoencoderDC"
    config: dict[str, Any] = Field(default_factory=dict)  # diffusers' arguments of that class
    fold: int = Field(1, gt=0)  # see DiffusersCodec
    train_encoder: bool = True  # false: latents stay as they are and only the decoder learns
    image_size: int = Field(64, gt=0)  # pixels a side; pictures are cut to this size, small ones scaled up
    batch_size: int = Field(16, gt=0)  # pictures of a micro-batch
    clutter: float = Field(0.1, ge=0, le=1)  # share of pictures that are made up (see clutter)
    noise: float = Field(0.2, ge=0)  # on latents before decoding, up to so many deviations
    measured: int = Field(2048, gt=0)  # pictures over which mean and deviation of latents are taken
    loss: CodecLosses = Field(default_factory=CodecLosses)

    def build(self, recipe: Recipe, checkpoint: Path | None = None) -> "CodecTrainee":
        """The codec, its pictures and its losses.  Raises UserError if they do not go together."""
        from unimodal.training.unified import mixture_of

        codec = self._codec()
        if self.image_size % codec.stride:
            raise UserError(
                f"model.image_size = {self.image_size} is no multiple of the codec's stride, {codec.stride}."
            )
        pictures = Pictures(mixture_of(recipe.data), self.image_size, self.clutter, recipe.data.seed)
        return CodecTrainee(codec, pictures, self)

    def _codec(self) -> DiffusersCodec:
        if not self.init_from:
            if self.train_encoder:
                config = self.config | {"_class_name": self.class_name}
                check_arguments(config)
                return DiffusersCodec(config, self.fold)
            raise UserError("model.train_encoder is false, but there is no encoder: set model.init_from")
        said = {"class_name", "config", "fold"} & self.model_fields_set
        if said:
            raise UserError(
                f"model.{min(said)} and model.init_from exclude each other: the network is that of "
                f"{self.init_from}. Remove one of them."
            )
        codec = load_codec(self.init_from)
        if not isinstance(codec, DiffusersCodec):
            raise UserError(f"{self.init_from} is a {type(codec).__name__}, which has nothing to train.")
        if not self.train_encoder:
            for name, parameter in codec.network.named_parameters():
                parameter.requires_grad_(not name.startswith(("encoder.", "quant_conv.")))
        return codec


@dataclass(frozen=True, slots=True)
class Pictures:
    """Picture number i, as a pure function: one of row i's pictures, or clutter.

    size   pixels a side
    share  of clutter
    """

    mixture: Mixture
    size: int
    share: float
    seed: int

    def __call__(self, number: int) -> tuple[str, np.ndarray] | None:
        """Where it came from and uint8 (size, size, 3); None if the row has no picture."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, number]))
        if rng.random() < self.share:
            return f"clutter:{number}", clutter(rng, self.size)
        document = self.mixture.document(number)
        if not document.images:
            return None
        return document.id, cut(document.images[rng.integers(len(document.images))].pixels, self.size, rng)

    def from_number(self, number: int, stride: int = 1) -> Iterator[tuple[int, str, np.ndarray]]:
        """Endless (number, where, picture) of number, number + stride, ...; rows without any are passed over.

        Raises UserError if the mixture seems to have no pictures at all.
        """
        empty = 0
        while True:
            found = self(number)
            empty = 0 if found else empty + 1
            if empty == WITHOUT_PICTURES:
                raise UserError(
                    f"data.sources: {empty} rows in a row hold no picture, so there is nothing to train a "
                    "codec on. Name sources or tasks with pictures."
                )
            if found:
                yield number, *found
            number += stride


def cut(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of uint8 (H, W, 3), scaled up first if a side is shorter than `size`."""
    height, width = pixels.shape[:2]
    if min(height, width) < size:
        scale = size / min(height, width)
        target = (max(size, round(width * scale)), max(size, round(height * scale)))
        pixels = np.asarray(Image.fromarray(pixels).resize(target, Image.Resampling.LANCZOS))
        height, width = pixels.shape[:2]
    top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
    return pixels[top : top + size, left : left + size]


@dataclass(frozen=True, slots=True)
class PictureBatch:
    """A micro-batch: pictures uint8 (B, H, W, 3), where they came from, and the number after the last."""

    pictures: np.ndarray
    ids: list[str]
    state: dict[str, Any]

    @property
    def tokens(self) -> int:
        """Pictures: nothing is padded."""
        return len(self.pictures)

    budget = tokens


class CodecTrainee:
    """See `unimodal.training.trainee.Trainee`."""

    def __init__(self, codec: DiffusersCodec, pictures: Pictures, section: CodecModelSection) -> None:
        self.module, self.pictures, self.section = codec, pictures, section
        # On a CPU convolutions run in this order of memory anyway; here they need not convert to it.
        codec.to(memory_format=torch.channels_last)
        self._flops: dict[tuple[int, int], float] = {}  # of one picture's forward, by its size

    def batches(self, start_state: dict | None, rank: int, world: int) -> Iterator[PictureBatch]:
        """Pictures number rank, rank + world, ... in batches."""
        stream = self.pictures.from_number(start_state["next"] if start_state else rank, world)
        while True:
            numbers, ids, pictures = zip(*(next(stream) for _ in range(self.section.batch_size)))
            yield PictureBatch(np.stack(pictures), list(ids), {"next": numbers[-1] + world})

    def count(self, batch: PictureBatch) -> dict[str, float]:
        """Every term is a mean over pictures."""
        return dict.fromkeys(CodecLosses.model_fields, float(len(batch.pictures)))

    def losses(self, batch: PictureBatch, generator: torch.Generator) -> Losses:
        """Sums over the batch's pictures of every term."""
        pixels = to_signal(batch.pictures, generator.device).contiguous(memory_format=torch.channels_last)
        mean, log_variance = self.module.posterior(pixels)
        latents = mean.float()
        if log_variance is None:
            pull = terms.moment_penalty(latents)
        else:
            pull = terms.gaussian_kl(latents, log_variance.float())
            noise = torch.randn(latents.shape, generator=generator, device=latents.device)
            latents = latents + noise * (0.5 * log_variance.float()).exp()
        noisy = terms.add_noise(latents, self.section.noise, generator)
        restored = self.module.from_raw(noisy).float()
        sums = {
            "absolute": terms.absolute_error(restored, pixels).sum(),
            "squared": terms.squared_error(restored, pixels).sum(),
            "edge": terms.edge_error(restored, pixels).sum(),
            "latents": pull.sum(),
        }
        return Losses(sums, self.section.loss.model_dump())

    def flops(self, batch: PictureBatch) -> float:
        """Three times the forward's convolutions and products, as torch counts them."""
        size = batch.pictures.shape[1:3]
        if size not in self._flops:
            self._flops[size] = self._count_flops(size)
        return 3 * len(batch.pictures) * self._flops[size]

    def _count_flops(self, size: tuple[int, int]) -> float:
        device = next(self.module.parameters()).device
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.module.from_raw(self.module.to_raw(torch.zeros(1, 3, *size, device=device)))
        return float(counter.get_total_flops())

    def samples(self, seed: int) -> Image.Image:
        """Pictures that training does not read, each over its reconstruction, eight pairs a row."""
        stream = self.pictures.from_number(SAMPLES_START + seed * SAMPLED)
        originals = np.stack([next(stream)[2] for _ in range(SAMPLED)])
        device = next(self.module.parameters()).device
        with torch.no_grad():
            again = self.module.from_raw(self.module.to_raw(to_signal(originals, device)))
        restored = ((again.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        half = SAMPLED // 2
        rows = [np.hstack(list(p[i : i + half])) for i in (0, half) for p in (originals, restored)]
        return Image.fromarray(np.vstack(rows))

    def save(self, folder: Path, module: nn.Module) -> None:
        """Measure the latents, unless they are to stay, and write the codec folder."""
        if self.section.train_encoder:
            module.measure(self._fresh(next(module.parameters()).device))
        module.save(folder)

    def _fresh(self, device: torch.device) -> Iterator[Tensor]:
        """`measured` pictures of the data alone, in batches, from beyond those of training and of samples."""
        stream = replace(self.pictures, share=0.0).from_number(2 * SAMPLES_START)
        left = self.section.measured
        while left:
            size = min(64, left)
            yield to_signal(np.stack([next(stream)[2] for _ in range(size)]), device)
            left -= size
