"""The unified model: one decoder, a text head, an image path, and a codec.

Text and images meet as embeddings in one sequence.  `forward` is the whole of training; `read` and `look` are
the whole of inference, over the same embeddings.

Legend: T positions of a pack, P image positions, C latent numbers a position, D width, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from unimodal.attention.door import Plan, make_plan
from unimodal.images.codec import Codec
from unimodal.images.patches import to_tokens
from unimodal.images.signal import to_signal
from unimodal.images.vision import Projector, VisionTower
from unimodal.model.cache import KVCache
from unimodal.model.config import ModelConfig
from unimodal.model.decoder import Decoder
from unimodal.model.masked_text import HIDDEN, hide
from unimodal.model.places import Places
from unimodal.model.reference import CellReference
from unimodal.paths import load_path
from unimodal.sequence.mask import PADDING, Marks
from unimodal.sequence.pack import Pack
from unimodal.sequence.spans import Grid, ImageSpan
from unimodal.sequence.writer import NO_LABEL

HALF = (torch.bfloat16, torch.float16)
Prepared = tuple[tuple[Tensor, Tensor], Plan]  # (row, slot) in a cache, and the mask's plan


@dataclass(slots=True)
class PackLosses:
    """Sums over one pack, to be divided by the counts of the whole optimizer step.

    text, image  summed loss; cross-entropy in nats per token (a bound on it where text is masked), path loss
                 per image position
    image_each   (I,) mean loss of every drawn image
    times        (I,) its noise level
    """

    text: Tensor
    image: Tensor
    image_each: Tensor
    times: Tensor


class UnifiedModel(nn.Module):
    """See the module's docstring.  The codec is part of the model; it is frozen unless told otherwise.

    tower  the vision tower, where the configuration has one; always frozen
    """

    def __init__(self, config: ModelConfig, codec: Codec, tower: VisionTower | None = None):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.decoder = Decoder(config)
        self.lm_head = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.places = Places(config.hidden_size)
        self.path = load_path(config.path)(config, codec)
        self.vision_in = Projector(config.vision.hidden_size, config.hidden_size) if config.vision else None
        self.reference: CellReference | None = None
        if config.reference == "cells":
            self.reference = CellReference(codec.channels * config.patch_size**2, config.hidden_size)
        self.apply(self._initialise)
        self.path.reset_parameters()
        if self.reference is not None:
            self.reference.reset_parameters()
        self.text_mask: nn.Parameter | None = None  # what a hidden token looks like
        if config.text_objective == "masked":
            self.text_mask = nn.Parameter(torch.zeros(config.hidden_size))
            nn.init.normal_(self.text_mask, std=0.02)
        self.codec = codec
        self.tower = tower

    def _initialise(self, module: nn.Module) -> None:
        """Normal with std 0.02, as Llama and Qwen; residual outputs are scaled down by depth (GPT-2)."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, layer in module.named_children():
            if name in ("o_proj", "down_proj"):
                nn.init.normal_(layer.weight, std=0.02 / (2 * self.config.num_hidden_layers) ** 0.5)

    @property
    def multiple(self) -> int:
        """Pixels per image position along a side."""
        return self.codec.stride * self.config.patch_size

    @property
    def block(self) -> int | None:
        """Tokens that are masked together, if text is learned by masked prediction."""
        return None if self.text_mask is None else self.config.masked_text.block

    @property
    def vision_grid(self) -> Grid | None:
        """Positions that the tower's reading of a picture takes; None without a tower."""
        return self.config.vision.grid if self.config.vision else None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.norm.weight.device

    def gradient_checkpointing_enable(self) -> None:
        """Recompute each layer in the backward pass instead of keeping its activations."""
        self.decoder.gradient_checkpointing = True

    # ---- images in ----------------------------------------------------------------------------

    def encode(self, pixels: list[np.ndarray]) -> list[Tensor]:
        """Latents (P, C), by which it is read, of each uint8 (H, W, 3) picture."""
        return self.encoded(pixels)[0]

    def encoded(self, pixels: list[np.ndarray]) -> tuple[list[Tensor], list[Any]]:
        """Latents of every picture, and what the path has to say of it; one size is encoded at once.

        In the codec's own precision, whatever the forward pass has: rounding turns codes into others.
        """
        latents: list[Any] = [None] * len(pixels)
        truths: list[Any] = [None] * len(pixels)
        sizes: dict[tuple[int, ...], list[int]] = {}
        for number, picture in enumerate(pixels):
            sizes.setdefault(picture.shape, []).append(number)
        for (height, width, _), numbers in sizes.items():
            with torch.autocast(self.device.type, enabled=False):
                encoded = self.codec.encode(to_signal(np.stack([pixels[n] for n in numbers]), self.device))
            cells = height // self.codec.stride, width // self.codec.stride
            maps = self.codec.codes_to_latents(encoded, cells) if self.codec.discrete else encoded
            tokens = to_tokens(maps.float(), self.config.patch_size)
            grid = cells[0] // self.config.patch_size, cells[1] // self.config.patch_size
            for n, token, truth in zip(numbers, tokens, self.path.truth(self.codec, encoded, tokens, grid)):
                latents[n], truths[n] = token, truth
        return latents, truths

    def _at(self, spans: list[ImageSpan]) -> Tensor:
        """The positions (P,) of spans in their pack."""
        return torch.cat([torch.arange(s.start, s.start + s.length) for s in spans]).to(self.device)

    def embed_text(self, ids: Tensor) -> Tensor:
        """Tokens, or HIDDEN, (...) to (..., D)."""
        embeds = self.embed_tokens(ids.clamp_min(0))
        if self.text_mask is None:
            return embeds
        return torch.where((ids == HIDDEN)[..., None], self.text_mask.to(embeds.dtype), embeds)

    # ---- training -----------------------------------------------------------------------------

    def forward(self, pack: Pack, generator: torch.Generator) -> PackLosses:
        """Losses of one pack (see PackLosses); all noise comes from `generator`."""
        pack = pack.to(self.device)
        ids = pack.ids[0]
        if self.block:
            hidden_text = hide(pack.blocks, generator)
            ids = ids.index_fill(0, hidden_text.at, HIDDEN)
        embeds = self.embed_text(ids)  # (T, D)
        is_image = torch.zeros(pack.budget, dtype=torch.bool, device=self.device)
        with torch.no_grad():
            latents, truths = self.encoded(pack.pixels)
        clean = [span for span in pack.images if span.kind == "clean"]
        drawn = [span for span in pack.images if span.kind == "target"]
        if clean:
            read = self.path.embed_clean(torch.cat([latents[span.image] for span in clean]))
            at = self._at(clean)
            embeds = embeds.index_copy(0, at, read.to(embeds.dtype))
            is_image[at] = True
        if drawn:
            seen = self.path.corrupt(
                [truths[span.image] for span in drawn], [span.grid for span in drawn], generator
            )
            target_at = self._at(drawn)
            shown = self.path.embed(seen)
            if self.reference is not None:
                pictures = [None if span.before is None else latents[span.before] for span in drawn]
                seen.before = self.reference.before(pictures, [span.grid for span in drawn], self.path)
                shown = shown + self.reference(seen.before)
            embeds = embeds.index_copy(0, target_at, shown.to(embeds.dtype))
            is_image[target_at] = True
        # What the tower tells is read like text, by the weights that compute text.
        if looked_at := [span for span in pack.images if span.kind == "vision"]:
            with torch.autocast(self.device.type, enabled=False):  # as in use
                features = self.tower([pack.pixels[span.image] for span in looked_at])
            told = self.vision_in(torch.cat(features))
            embeds = embeds.index_copy(0, self._at(looked_at), told.to(embeds.dtype))
        plan = make_plan(pack.marks, half=torch.is_autocast_enabled(self.device.type), pack=True)
        embeds = self.places(embeds[None], pack.position, is_image[None])
        hidden = self.decoder(embeds, pack.position, plan, is_image[None])[0]  # (T, D)

        labels = pack.labels[0]
        if self.block:
            logits = self.logits(hidden[hidden_text.at]).float()
            said = cross_entropy(logits, labels[hidden_text.at], reduction="none")
            text = (said * hidden_text.weight).sum()
        else:
            trained = labels != NO_LABEL
            logits = self.logits(hidden[trained])
            text = cross_entropy(logits.float(), labels[trained], reduction="sum")
        zero = text.new_zeros(0)
        if not drawn:
            return PackLosses(text, self._untouched() + text.new_zeros(()), zero, zero)
        each = self.path.loss(hidden[target_at], seen)  # (P,)
        lengths = [span.length for span in drawn]
        mean = torch.stack([part.mean() for part in each.detach().split(lengths)])
        return PackLosses(text, each.sum(), mean, seen.times)

    def _untouched(self) -> Tensor:
        """Zero that touches the weights that draw, so that ranks without images join the all-reduce."""
        parts = [self.path] if self.reference is None else [self.path, self.reference]
        return sum(p.sum() for part in parts for p in part.parameters() if p.requires_grad) * 0.0

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., V)."""
        return linear(hidden, self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight)

    # ---- inference ----------------------------------------------------------------------------

    def new_cache(self, rows: int, room: int) -> KVCache:
        """An empty cache for `rows` conversations of up to `room` positions (it grows when needed)."""
        config = self.config
        like = self.decoder.norm.weight
        return KVCache.empty(
            config.num_hidden_layers, rows, room, config.num_key_value_heads, config.head_dim, like
        )

    def read(
        self,
        cache: KVCache,
        ids: Tensor,
        position: Tensor,
        marks: Marks,
        images: list[list[tuple[int, Tensor]]] | None = None,
        features: list[list[tuple[int, Tensor]]] | None = None,
    ) -> Tensor:
        """Read a ragged batch into the cache and commit it: hidden states (B, T, D).

        ids, position, marks  (B, T), (B, T, 3), (B, T); padding (document PADDING) only at row ends
        images                for each row, (first position, latents (P, C)) of its finished images
        features              for each row, (first position, features (P, F)) of what the tower tells of them
        """
        embeds, is_image = self.embedded(ids, images, features)
        hidden = self._cached(cache, embeds, position, is_image, self.prepare(cache, marks))
        cache.commit((marks.document != PADDING).sum(1))
        return hidden

    def embedded(
        self,
        ids: Tensor,
        images: list[list[tuple[int, Tensor]]] | None = None,
        features: list[list[tuple[int, Tensor]]] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Embeddings (B, T, D) without places, and which are those of `images` (see `read`): (B, T)."""
        embeds = self.embed_text(ids)
        is_image = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
        for row, spans in enumerate(images or []):
            for start, latents in spans:
                embeds[row, start : start + len(latents)] = self.path.embed_clean(latents).to(embeds.dtype)
                is_image[row, start : start + len(latents)] = True
        for row, spans in enumerate(features or []):
            for start, told in spans:
                embeds[row, start : start + len(told)] = self.vision_in(told).to(embeds.dtype)
        return embeds, is_image

    def prepare(self, cache: KVCache, marks: Marks) -> Prepared:
        """What all looks at positions of these marks (B, P) over the cache, as it now is, have in common."""
        row, slot, keys = cache.place(marks)
        return (row, slot), make_plan(marks, keys, half=cache.k[0].dtype in HALF)

    def look(
        self,
        cache: KVCache,
        embeds: Tensor,
        position: Tensor,
        marks: Marks,
        image: bool = True,
        prepared: Prepared | None = None,
    ) -> Tensor:
        """Hidden states (B, P, D) of embeddings over the cache, which is left as it was.

        image     whether they are an image's; otherwise a block of text's
        prepared  from `prepare`, for several looks at one place
        The decoder may compute in half precision; the path, from whose numbers these come, need not.
        """
        is_image = torch.full(embeds.shape[:2], image, dtype=torch.bool, device=embeds.device)
        inside = embeds.to(cache.k[0].dtype)
        prepared = prepared or self.prepare(cache, marks)
        return self._cached(cache, inside, position, is_image, prepared).to(embeds.dtype)

    def _cached(
        self, cache: KVCache, embeds: Tensor, position: Tensor, is_image: Tensor, prepared: Prepared
    ) -> Tensor:
        place, plan = prepared
        embeds = self.places(embeds, position, is_image)
        return self.decoder(embeds, position, plan, is_image, place, cache)
