"""Distributions over tiny pictures that are known exactly, and how a path is trained on and drawn from."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tests.documents import tokenizer
from unimodal.data.document import Document, Image, Turn
from unimodal.diffusion.guidance import Guidance
from unimodal.generation.context import read_documents, start_image
from unimodal.generation.draw import draw
from unimodal.images.codec import Codec
from unimodal.model.config import DropTable, ModelConfig
from unimodal.model.unified import UnifiedModel
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import pack_sequences


class Gray(Codec):
    """A cell a pixel; its one latent is the pixel's brightness, scaled."""

    def __init__(self, std: float = 1.0):
        super().__init__(1, 1)
        self.std.fill_(std)

    def to_raw(self, pixels: Tensor) -> Tensor:
        """Mean over colours."""
        return pixels.mean(1, keepdim=True)

    def from_raw(self, latents: Tensor) -> Tensor:
        """The same for all colours."""
        return latents.expand(-1, 3, -1, -1)

    def save_network(self, folder) -> dict:
        """Nothing to keep."""
        return {}


class Shades(Gray):
    """A cell a pixel; its code is which of `vocabulary` shades from black to white it has."""

    discrete, shares, shared = True, (1.0,), True

    def __init__(self, vocabulary: int = 3):
        super().__init__()
        self.vocabulary = vocabulary

    def encode(self, pixels: Tensor) -> Tensor:
        """See DiscreteCodec."""
        return ((self.to_raw(pixels) + 1) / 2 * (self.vocabulary - 1)).round().long().flatten(1)

    def codes_to_latents(self, codes: Tensor, cells: tuple[int, int]) -> Tensor:
        """See DiscreteCodec."""
        return (codes.float() / (self.vocabulary - 1) * 2 - 1).unflatten(1, (1, *cells))

    def decode(self, codes: Tensor, cells: tuple[int, int]) -> Tensor:
        """See DiscreteCodec."""
        return self.from_raw(self.codes_to_latents(codes, cells))


def toy_model(codec: Codec, path: str, seed: int = 0, **changes) -> UnifiedModel:
    """A freshly initialised small model, as training begins with."""
    fields = dict(
        vocab_size=len(tokenizer()),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=16,
        rope_theta=100.0,
        path=path,
        drop=DropTable(text=0, image=0, both=0),
    )
    torch.manual_seed(seed)
    return UnifiedModel(ModelConfig(**fields | changes), codec)


def learn(
    model: UnifiedModel,
    pictures: Callable[[np.random.Generator, int], np.ndarray],
    steps: int,
    batch: int = 256,
    rate: float = 3e-3,
) -> None:
    """Train on a batch of pictures every step, with AdamW and a rate that falls to nothing."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    model.train()
    for _ in range(steps):
        shown = [Document((Turn(None, (Image(p, True),)),)) for p in pictures(rng, batch)]
        pack = pack_sequences([layout(d, tokenizer(), model.path, model.multiple) for d in shown])
        losses = model(pack, generator)
        loss = losses.image / sum(span.length for span in pack.images)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def drawn(
    model: UnifiedModel, grid: tuple[int, int], count: int, seed: int = 0, steps: int | None = None
) -> np.ndarray:
    """`count` pictures with nothing told: uint8 (count, h, w), of one colour."""
    nothing = [Document((Turn(None, ()),))] * count
    context = read_documents(model, tokenizer(), nothing, room=16)
    start_image(model, tokenizer(), context, grid)
    generators = [torch.Generator().manual_seed(seed * 1_000_000 + row) for row in range(count)]
    made = draw(model, tokenizer(), context, nothing, grid, generators, Guidance(), steps)
    return np.stack(made)[..., 0]


# ---- codes: 2 x 2 pictures of three shades, 81 in all ---------------------------------------------

SHADES = np.array([0, 128, 255], dtype=np.uint8)
EVERY = np.stack(np.unravel_index(np.arange(81), (3,) * 4), axis=-1)  # (81, 4) shades of each


def shaded(shades: np.ndarray) -> np.ndarray:
    """Pictures (n, 2, 2, 3) of shades (n, 4)."""
    return SHADES[shades].reshape(-1, 2, 2, 1).repeat(3, axis=-1)


def independent(odds: np.ndarray) -> np.ndarray:
    """(81,) the distribution of pictures whose cells are drawn apart, each as often as in `odds`."""
    cells = odds.reshape(3, 3, 3, 3)
    alone = [cells.sum(tuple({0, 1, 2, 3} - {axis})) for axis in range(4)]
    return np.einsum("a,b,c,d->abcd", *alone).reshape(81)


def frequencies(pictures: np.ndarray) -> np.ndarray:
    """(81,) how often each occurs among pictures (n, 2, 2)."""
    shades = np.searchsorted(SHADES, pictures.reshape(len(pictures), 4))
    return np.bincount(np.ravel_multi_index(tuple(shades.T), (3,) * 4), minlength=81)


# ---- latents ---------------------------------------------------------------------------------------


def energy_distance(first: np.ndarray, second: np.ndarray) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| of points (n, d) and (m, d) (Szekely and Rizzo 2013); 0 if alike."""

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.norm(a[:, None] - b[None], axis=-1).mean())

    def within(a: np.ndarray) -> float:
        return apart(a, a) * len(a) / (len(a) - 1)

    return 2 * apart(first, second) - within(first) - within(second)
