"""Toy pictures whose every distribution can be written down, and what samples of them are compared with."""

import math
from collections.abc import Callable
from unittest import mock

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from tests.documents import tokenizer
from tests.models import tiny_config, tiny_model
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.diffusion.guidance import Guidance
from unimodal.generation.context import read_documents, start_image
from unimodal.generation.draw import draw
from unimodal.images.codec import Codec
from unimodal.images.discrete import DiscreteCodec
from unimodal.images.quantizers import build_quantizer
from unimodal.images.signal import to_signal
from unimodal.model.unified import UnifiedModel
from unimodal.paths.codes import places
from unimodal.sequence.layout import layout
from unimodal.sequence.pack import pack_sequences

LEVEL = 40  # of grey, between code k and code k + 1


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


class ToyCodec(DiscreteCodec):
    """Pixels that say the codes: a pixel a cell, a colour a map, a level of grey a code (7 at most)."""

    def __init__(self, quantizer: dict, channels: int = 2):
        Codec.__init__(self, 1, channels)
        self.quantizer = build_quantizer(quantizer, channels)
        self.std.fill_(0.2)  # latents large enough for a random model to tell codes apart

    def encode(self, pixels: Tensor) -> Tensor:
        levels = ((pixels + 1) * 127.5 / LEVEL).round().long()
        return torch.cat([levels[:, m, *at] for m, at in self._places(pixels.shape[2:])], 1)

    def decode(self, codes: Tensor, cells) -> Tensor:
        pixels = torch.full((len(codes), 3, *cells), -1.0)
        for (m, at), part in zip(self._places(cells), self.quantizer.split(codes, cells)):
            pixels[:, m, *at] = part * LEVEL / 127.5 - 1
        return pixels

    def _places(self, cells):
        return [(m, places(size, tuple(cells)).T) for m, size in enumerate(self.maps(tuple(cells)))]

    def picture(self, codes, cells) -> np.ndarray:
        """uint8 (h, w, 3) of codes (N,)."""
        signal = self.decode(torch.as_tensor(np.asarray(codes))[None], cells)
        return ((signal[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def toy_model(path: str, quantizer: dict, seed: int = 0, **options) -> UnifiedModel:
    """A tiny random model on such a codec."""
    torch.manual_seed(seed)
    return tiny_model(seed, ToyCodec(quantizer).requires_grad_(False), path=path, path_options=options)


def fresh_model(path: str, codec: Codec, seed: int = 0, **changes) -> UnifiedModel:
    """A small model as training begins with it, and no conditions dropped."""
    torch.manual_seed(seed)
    shape = {"hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 3, "num_key_value_heads": 3}
    config = tiny_config(path=path, drop={"text": 0, "image": 0, "both": 0}, **shape | changes)
    return UnifiedModel(config, codec.requires_grad_(False))


NOTHING = Document((Turn(None, ()),))  # no prompt at all


def unasked(pixels: np.ndarray) -> Document:
    """A picture that is drawn for no prompt."""
    return Document((Turn(None, (Image(pixels, True),)),))


def asked(prompt: str) -> Document:
    return Document((Turn("user", (Text(prompt),)),))


def told(model: UnifiedModel, prompt: str, codes, cells) -> Document:
    """The prompt with the picture of these codes drawn for it."""
    answer = Turn("assistant", (Image(model.codec.picture(codes, cells), True),))
    return Document((*asked(prompt).turns, answer))


def every(codes: int, count: int) -> np.ndarray:
    """All pictures of `count` codes: (codes ** count, count)."""
    return np.stack(np.indices((codes,) * count), -1).reshape(-1, count)


@torch.no_grad()
def hidden_of(model: UnifiedModel, documents: list[Document]) -> Tensor:
    """What training computes: hidden states (M, P, D) at the positions that are to be drawn."""
    sequences = [layout(d, tokenizer(), model.path, model.multiple) for d in documents]
    seen = []

    def keep(hidden, corrupted):
        seen.append(hidden)
        return hidden.sum(-1)

    with mock.patch.object(model.path, "loss", keep):
        model(pack_sequences(sequences), torch.Generator())
    return rearrange(seen[0], "(m p) d -> m p d", m=len(documents))


def chances(logits, temperature=1.0, top_k=None, top_p=1.0) -> np.ndarray:
    """Probability of every code, by the definition of the settings: (V,) to (V,)."""
    logits = np.asarray(logits, dtype=float)
    weight = np.exp((logits - logits.max()) / temperature)
    likely = sorted(range(len(weight)), key=lambda k: -weight[k])[:top_k]
    total, reached, kept = sum(weight[k] for k in likely), 0.0, np.zeros(len(weight))
    for k in likely:
        if reached >= top_p:
            break
        kept[k] = weight[k]
        reached += weight[k] / total
    return kept / kept.sum()


@torch.inference_mode()
def pictures_drawn(
    model: UnifiedModel,
    document: Document,
    cells,
    count: int,
    guidance: float | Guidance = 1.0,
    steps: int | None = None,
) -> np.ndarray:
    """`count` pictures for one prompt, uint8 (count, h, w, 3), as the engine draws them."""
    documents = [document] * count
    context = read_documents(model, tokenizer(), documents)
    start_image(model, tokenizer(), context, cells)
    generators = [torch.Generator().manual_seed(seed) for seed in range(count)]
    drawing = guidance if isinstance(guidance, Guidance) else Guidance(guidance)
    return np.stack(draw(model, tokenizer(), context, documents, cells, generators, drawing, steps))


@torch.inference_mode()
def drawn(
    model: UnifiedModel,
    prompt: str | None,
    cells,
    count: int,
    guidance: float | Guidance = 1.0,
    steps: int | None = None,
) -> np.ndarray:
    """The codes (count, N) of such pictures; None is no prompt."""
    document = NOTHING if prompt is None else asked(prompt)
    pictures = pictures_drawn(model, document, cells, count, guidance, steps)
    return model.codec.encode(to_signal(pictures)).numpy()


def frequencies(samples: np.ndarray, table: np.ndarray) -> np.ndarray:
    """How many samples (n, N) equal each row of a table (M, N) of different pictures."""
    return (samples[:, None] == table[None]).all(-1).sum(0)


def fits(counts: np.ndarray, probability: np.ndarray) -> bool:
    """Chi-square test at about one in ten thousand; pictures expected less than five times are pooled.

    The tail is that of the normal distribution (Wilson and Hilferty 1931).
    """
    if counts[probability == 0].any():
        return False
    expected = counts.sum() * probability
    rare = expected < 5
    seen = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    seen, expected = seen[expected > 0], expected[expected > 0]
    freedom = len(seen) - 1
    ratio = ((seen - expected) ** 2 / expected).sum() / freedom
    spread = 2 / (9 * freedom)
    return (ratio ** (1 / 3) - 1 + spread) / math.sqrt(spread) < 3.7


def distance(counts: np.ndarray, probability: np.ndarray) -> float:
    """Total variation between what was drawn and what should be, in [0, 1]."""
    return 0.5 * np.abs(counts / counts.sum() - probability).sum()


def energy_distance(first: np.ndarray, second: np.ndarray) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| of points (n, d) and (m, d) (Szekely and Rizzo 2013); 0 if alike."""

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.norm(a[:, None] - b[None], axis=-1).mean())

    def within(a: np.ndarray) -> float:
        return apart(a, a) * len(a) / (len(a) - 1)

    return 2 * apart(first, second) - within(first) - within(second)


# To lay out and pack documents takes longer than a step of so small a model; these are not learned by heart.
PACKS = 50


def train(
    model: UnifiedModel,
    documents: list[Document] | Callable[[np.random.Generator], list[Document]],
    steps: int,
    rate: float = 4e-3,
) -> Tensor:
    """AdamW on what is drawn, its rate falling to 0; each picture's mean loss at the end.

    documents  the same in every step, or a function that makes new ones for the first PACKS steps; then they
               come again, under other noise
    """

    def pack_of(these: list[Document]):
        return pack_sequences([layout(d, tokenizer(), model.path, model.multiple) for d in these])

    rng = np.random.default_rng(0)
    made = [documents(rng) for _ in range(min(PACKS, steps))] if callable(documents) else [documents]
    packs = [pack_of(these) for these in made]
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, rate, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for step in range(steps):
        pack = packs[step % len(packs)]
        losses = model(pack, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (losses.image / sum(span.length for span in pack.images)).backward()
        optimizer.step()
        schedule.step()
    return losses.image_each


SPREAD = 0.47  # of the brightness below


def two_modes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 2) brightness of two pixels: light and dark (7 in 10) or dark and light, each a little off."""
    sign = np.where(rng.random(count) < 0.7, 1, -1)
    return 0.45 * sign[:, None] * np.array([1, -1]) + 0.12 * rng.standard_normal((count, 2))


def energy_from_two_modes(steps: int = 250, **changes) -> tuple[float, float]:
    """Energy distance of 1,000 drawn pictures of two pixels from 1,000 true ones, and of pixels drawn apart.

    In units of the latents' deviation.  True ones among each other are within 0.005; pixels drawn apart are
    0.1 away or more.
    """

    def pictures(rng: np.random.Generator) -> list[Document]:
        bright = ((two_modes(rng, 192) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
        return [unasked(one) for one in bright[:, None, :, None].repeat(3, axis=-1)]

    torch.set_num_threads(1)
    sampling = {"steps": 24, "solver": "heun", "guidance": 1.0}
    model = fresh_model(codec=Gray(SPREAD), sampling=sampling, **changes)
    train(model, pictures, steps)
    found = pictures_drawn(model, NOTHING, (1, 2), 1000)[:, 0, :, 0] / 127.5 - 1
    rng = np.random.default_rng(1)
    true, apart = two_modes(rng, 1000), two_modes(rng, 1000)
    apart[:, 1] = rng.permutation(apart[:, 1])
    return tuple(energy_distance(some / SPREAD, true / SPREAD) for some in (found, apart))
