"""An external model: a frozen reader understands, a connector translates, a denoiser draws.

    prompt -> reader -> hidden -> connector -> cond -> denoiser(noisy, t, cond, reference) -> velocity

Training is flow matching on the codec's latents; only connector and denoiser learn.  B prompts, C latent
channels, h w latent grid.
"""

import hashlib
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unimodal.adapters.base import hashed
from unimodal.connectors import load_connector
from unimodal.connectors.connector import Ends
from unimodal.data.document import Document, drop
from unimodal.denoisers import load_denoiser
from unimodal.denoisers.denoiser import Conditions, rows_of
from unimodal.diffusion.process import FLOW, velocity
from unimodal.diffusion.times import logit_normal
from unimodal.errors import UserError
from unimodal.external.cache import ConditionCache
from unimodal.external.changes import change_weights
from unimodal.external.config import ExternalConfig
from unimodal.external.prompts import reference
from unimodal.images.codec import Codec
from unimodal.images.signal import to_signal
from unimodal.readers.reader import Reader
from unimodal.sequence.spans import Grid


@dataclass(slots=True)
class ExternalLosses:
    """Sums over one batch, to be divided by the counts of the whole optimizer step.

    image       squared error of the velocity, a mean over channels, summed over latent cells
    embedding   of a connector that regresses to embeddings, summed over pictures; None of others
    image_each  (I,) mean loss of every noised picture
    times       (I,) its noise level
    """

    image: Tensor
    embedding: Tensor | None
    image_each: Tensor
    times: Tensor


class ExternalModel(nn.Module):
    """See the module's docstring.  Reader and codec are part of the model, frozen, and always as in use.

    Raises UserError if the parts do not go together.
    """

    def __init__(self, config: ExternalConfig, reader: Reader, codec: Codec):
        super().__init__()
        if codec.discrete:
            raise UserError("an external denoiser draws continuous latents, but the codec has codes.")
        self.denoiser = load_denoiser(config.denoiser.kind)(
            codec.channels, config.latents, config.denoiser.options
        )
        ends = Ends(reader.layers, reader.width, reader.seen, self.denoiser.condition, self.denoiser.scale)
        connector = config.connector
        self.connector = load_connector(connector.kind)(ends, connector.tap_layer, connector.options)
        appended = self.connector.appended
        if appended is not None and reader.causal and not appended.causal:
            raise UserError(
                "the attention of a transformers reader is causal, so positions behind the prompt cannot all "
                "see each other; set model.connector.options.causal=true."
            )
        if config.reader_sees and not reader.sees:
            raise UserError(
                f"model.reference {config.reference}: a picture to edit would reach the denoiser through the "
                f"reader, but the reader {config.reader.kind} sees none. Set model.reference to vae_seq or "
                "vae_channel."
            )
        self.multiple = lcm(reader.multiple, codec.stride * self.denoiser.multiple)
        self.configure(config)
        self.cache: ConditionCache | None = None
        self.changed_area = False  # whether what an edit changes counts more in training
        if reader.codec is not None and same_weights(reader.codec, codec):
            codec = reader.codec  # one that both share is in memory once
        self.reader, self.codec = reader.requires_grad_(False), codec.requires_grad_(False)
        self.train(False)

    def keep_conditions(self, folder: Path) -> None:
        """In training, read every prompt once and keep what the reader made of it in a folder.

        Raises UserError for a connector that learns positions which it appends: what is read of them changes.
        """
        if self.appends_what_learns:
            raise UserError(
                f"model.cache: the connector {self.config.connector.kind} puts positions of its own "
                "behind the prompt; what the reader makes of them changes as they learn. Use hidden or "
                "qformer, queries that are not learned, model.trained=[denoiser], or no cache."
            )
        sha256 = self.config.reader.sha256
        if self.connector.appended is not None:
            learned = {name for name, weight in self.connector.named_parameters() if weight.requires_grad}
            weights = self.connector.state_dict().items()
            still = hashed((name, weight.cpu()) for name, weight in weights if name not in learned)
            asked = f"{sha256} {self.config.connector.model_dump_json()} {still}"
            sha256 = hashlib.sha256(asked.encode()).hexdigest()
        self.cache = ConditionCache(folder, sha256, self.connector.tap.layers)

    def configure(self, config: ExternalConfig) -> None:
        """Take other settings, not other parts.  Raises UserError for a picture size that does not fit."""
        if config.image_size % self.multiple:
            raise UserError(
                f"image_size {config.image_size} is no multiple of {self.multiple} pixels, in which reader, "
                "codec and denoiser count together."
            )
        self.config = config

    def train(self, mode: bool = True) -> "ExternalModel":
        """Connector and denoiser alone: what is frozen stays as in use, without dropout."""
        super().train(mode)
        self.reader.eval()
        self.codec.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.codec.mean.device

    @property
    def regresses(self) -> bool:
        """Whether the connector has a loss of its own (see `prefilled`)."""
        return hasattr(self.connector, "regression")

    @property
    def appends_what_learns(self) -> bool:
        """Whether the connector puts positions behind prompts that change in training: none can be kept."""
        appended = self.connector.appended
        if appended is None:
            return False
        nothing = torch.zeros(1, 1, self.reader.width, device=self.device)
        return appended.make(nothing, nothing[..., 0] == 0).requires_grad

    # ---- what is told ---------------------------------------------------------------------------

    def read(self, prompts: list[Document]) -> tuple[Tensor, Tensor]:
        """What the reader makes of prompts: hidden states (B, T, K, D) and mask (B, T) for the connector.

        In its own precision, whatever training computes in, so that kept conditions are those of now.
        """
        told = prompts if self.config.reader_sees else [drop(prompt, "image") for prompt in prompts]
        with torch.autocast(self.device.type, enabled=False):
            if self.cache is not None and self.training:
                return self.cache.read(self.reader, told, self.device, self.connector.appended)
            return self.reader.read(told, self.connector.tap.layers, self.connector.appended)

    def see(self, pictures: list[np.ndarray]) -> list[tuple[Tensor, Grid]]:
        """What the reader sees of pictures (see Reader), in its own precision too."""
        with torch.autocast(self.device.type, enabled=False):
            return self.reader.see(pictures)

    def references(self, prompts: list[Document]) -> list[Tensor | None]:
        """Latents (C, h, w) of the picture that each prompt is to change; None where there is none."""
        if self.config.latents == "none":
            return [None] * len(prompts)
        pictures = [reference(prompt) for prompt in prompts]
        there = iter(self.encode([picture for picture in pictures if picture is not None]))
        return [None if picture is None else next(there) for picture in pictures]

    @torch.no_grad()
    def encode(self, pictures: list[np.ndarray]) -> list[Tensor]:
        """Latents (C, h, w) of each uint8 (H, W, 3) picture; one size is encoded at once."""
        latents: list[Tensor | None] = [None] * len(pictures)
        for numbers in alike([picture.shape for picture in pictures]):
            signal = to_signal(np.stack([pictures[n] for n in numbers]), self.device)
            with torch.autocast(self.device.type, enabled=False):  # as in use
                encoded = self.codec.encode(signal)
            for n, one in zip(numbers, encoded.float()):
                latents[n] = one
        return latents

    def look(self, noisy: Tensor, t: Tensor, ready: Any) -> Tensor:
        """One solver step's velocity of latents (B, C, h, w): see Denoiser."""
        return self.denoiser(noisy, t, ready)

    # ---- training -------------------------------------------------------------------------------

    def forward(
        self, prompts: list[Document], pictures: list[np.ndarray], generator: torch.Generator
    ) -> ExternalLosses:
        """Losses of pictures drawn from prompts (see ExternalLosses); all noise comes from `generator`."""
        hidden, mask = self.read(prompts)
        cond, cond_mask = self.connector(hidden, mask)
        latents, references = self.encode(pictures), self.references(prompts)
        embedding = None
        if self.regresses:
            embedding = self.connector.regression(hidden, self.see(pictures)).sum()
        total, each, times = cond.new_zeros((), dtype=torch.float32), [], []
        for rows in alike([(a.shape, None if b is None else b.shape) for a, b in zip(latents, references)]):
            index = torch.tensor(rows, device=self.device)
            conditions = Conditions.of(cond[index], cond_mask[index], [references[row] for row in rows])
            clean = torch.stack([latents[row] for row in rows])
            weights = self._weights(prompts, pictures, rows).to(clean) if self.changed_area else None
            # What is read and prepared once is drawn from at several noise levels.
            again = torch.arange(len(rows), device=self.device).repeat_interleave(self.config.times.copies)
            ready = rows_of(self.denoiser.prepare(conditions), again)
            error, t = self._error(clean[again], ready, generator)
            if weights is not None:
                error = error * weights[again]
            total = total + error.sum()
            each.append(error.detach().mean((1, 2)))
            times.append(t)
        return ExternalLosses(total, embedding, torch.cat(each), torch.cat(times))

    def _weights(self, prompts: list[Document], pictures: list[np.ndarray], rows: list[int]) -> Tensor:
        """How much the latent cells of some rows count: (B, h, w), see `change_weights`."""
        cell = self.codec.stride
        return torch.stack([change_weights(reference(prompts[n]), pictures[n], cell) for n in rows])

    def _error(self, clean: Tensor, ready: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Squared error (B, h, w) of the velocity of noised latents (B, C, h, w), and their levels (B,)."""
        levels = self.config.times
        t = logit_normal(len(clean), generator, levels.mean, levels.std, levels.shift).to(clean.device)
        eps = torch.randn(clean.shape, generator=generator, device=generator.device).to(clean)
        noisy = FLOW.noised(clean, eps, t[:, None, None, None])
        said = self.denoiser(noisy, t, ready)
        return (said - velocity(clean, eps)).square().mean(1), t


def alike(keys: list) -> list[list[int]]:
    """Numbers of equal keys together, in the order in which they first come."""
    groups: dict = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Whether two modules are of one class and have weights of the same names and values."""
    one, other = first.state_dict(), second.state_dict()
    return (
        type(first) is type(second)
        and one.keys() == other.keys()
        and all(torch.equal(one[name], other[name]) for name in one)
    )
