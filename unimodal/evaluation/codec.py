"""The codec suite: how well pictures survive the way to latents or codes and back, and how codes are used.

On pictures of the shapes world, where the oracle says whether the reconstruction still shows the same scene,
and on emoji where a folder of them is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_tools.shapes.oracle import read_scene
from data_tools.shapes.render import CANVAS
from data_tools.shapes.rows import Example, example
from unimodal.errors import UserError
from unimodal.evaluation.emoji import SPLITS, read_examples
from unimodal.evaluation.frechet import FEATURES, features, frechet_score
from unimodal.evaluation.report import Case
from unimodal.evaluation.scores import Score, average, share
from unimodal.evaluation.shapes import BATCH, psnr
from unimodal.images.codec import CODEC_FILE, Codec
from unimodal.images.discrete import DiscreteCodec
from unimodal.images.folder import SHIPPED, load_codec
from unimodal.images.signal import to_pixels, to_signal

COUNTED = 2048  # pictures over which the use of codes is counted


@dataclass(frozen=True, slots=True)
class JudgedCodec:
    """A codec alone, as something to judge."""

    name: str
    codec: Codec


def open_codec(name: str) -> JudgedCodec | None:
    """The codec of a folder that holds one, or a shipped one; None if it is none (but a model, say)."""
    folder = Path(name) if Path(name).is_dir() else SHIPPED / name
    config = folder / "config.json"
    alone = config.is_file() and '"_class_name"' in config.read_text(encoding="utf-8")
    return JudgedCodec(name, load_codec(folder)) if alone or (folder / CODEC_FILE).is_file() else None


def judge_codec(
    model: Any, split: str, n: int, seed: int, data: Path | None = None
) -> tuple[dict[str, Score], list[Case]]:
    """Scores of `n` pictures of the shapes world, and of `n` emoji if `data` names their folder.

    model  a loaded model, or what `open_codec` gave
    Gives psnr (decibels), ssim, frechet_<features>, read (the share that the oracle still reads exactly) and,
    of codecs with codes, use and perplexity (see `code_scores`), counted over COUNTED pictures whatever `n`
    is, or all emoji there are: of a few pictures, codecs of more codes a picture would seem to use more.
    Raises UserError if there is no codec, or no such emoji.
    """
    codec, device = _codec_of(model)
    canvas = getattr(getattr(model, "config", None), "image_size", None) or CANVAS

    def rendered(count: int) -> list[Example]:
        return [example("t2i", split, seed, i, canvas=canvas) for i in range(count)]

    asked = rendered(n)
    before = [one.row["images"][0] for one in asked]
    after, scores = measure(codec, device, before)
    cases = []
    for one, shown, back in zip(asked, before, after):
        tiles = ((Image.fromarray(shown), "before"), (Image.fromarray(back), "after the codec"))
        cases.append(Case("codec/read", read_scene(back) == one.steps[0].scene, tiles))
    found = {f"codec/{name}": score for name, score in scores.items()}
    found["codec/read"] = share(case.right for case in cases)
    if codec.discrete:
        many = [one.row["images"][0] for one in rendered(COUNTED)]
        found |= {f"codec/{name}": score for name, score in code_scores(codec, device, many).items()}
    if data is not None:
        many = _emoji(Path(data), split, COUNTED, seed)
        _, scores = measure(codec, device, many[:n])
        scores |= code_scores(codec, device, many) if codec.discrete else {}
        found |= {f"codec_emoji/{name}": score for name, score in scores.items()}
    return found, cases


def _codec_of(model: Any) -> tuple[Any, torch.device]:
    if isinstance(model, JudgedCodec):
        return model.codec, model.codec.mean.device
    if not hasattr(getattr(model, "model", None), "codec"):
        raise UserError(f"{getattr(model, 'name', 'this model')} has no codec to judge")
    return model.model.codec, model.model.device


@torch.inference_mode()
def measure(
    codec: Codec, device: torch.device, pictures: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], dict[str, Score]]:
    """Reconstructions of uint8 (H, W, 3) pictures of one size, and what is to be said of them."""
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    after: list[np.ndarray] = []
    alike: list[float] = []
    for start in range(0, len(pictures), BATCH):
        signal = to_signal(np.stack(pictures[start : start + BATCH]), device)
        back = codec.reconstruct(signal)
        pixels = to_pixels(back)  # rounded, as a saved picture would be
        after += list(pixels)
        # In double precision, without which even equal flat areas differ.
        both = to_signal(pixels, device).double(), signal.double()
        alike += ssim(*both, data_range=2.0, reduction="none").tolist()
    errors = [np.square(a.astype(np.float64) - b).mean() for a, b in zip(pictures, after)]
    scores = {"psnr": average(map(psnr, errors)), "ssim": average(alike)}
    if len(pictures) > 1:
        both = [_features(some) for some in (pictures, after)]
        scores[f"frechet_{FEATURES}"] = frechet_score(*both)
    return after, scores


def _features(pictures: Sequence[np.ndarray]) -> np.ndarray:
    starts = range(0, len(pictures), BATCH)
    return np.concatenate([features(np.stack(pictures[start : start + BATCH])) for start in starts])


@torch.inference_mode()
def code_scores(
    codec: DiscreteCodec, device: torch.device, pictures: Sequence[np.ndarray]
) -> dict[str, Score]:
    """Share of the codebook that these pictures use, and exp(entropy) of the use; means over codebooks.

    They are counts of just these pictures, so their interval has no width; `n` is the number of pictures.
    """
    counts: Tensor | int = 0  # (books, V)
    for start in range(0, len(pictures), BATCH):
        signal = to_signal(np.stack(pictures[start : start + BATCH]), device)
        codes = codec.encode(signal)
        cells = (signal.shape[2] // codec.stride, signal.shape[3] // codec.stride)
        parts = [codes] if codec.shared else codec.quantizer.split(codes, cells)
        counts = counts + torch.stack(
            [torch.bincount(part.flatten(), minlength=codec.vocabulary).double() for part in parts]
        )
    odds = counts / counts.sum(1, keepdim=True)
    used = (counts > 0).double().mean()
    spread = torch.special.entr(odds).sum(1).exp().mean()
    return {
        name: Score(float(value), float(value), float(value), len(pictures))
        for name, value in (("use", used), ("perplexity", spread))
    }


def _emoji(data: Path, split: str, n: int, seed: int) -> list[np.ndarray]:
    """`n` different pictures of the emoji rows of a split, drawn by `seed`."""
    if split not in SPLITS:
        raise UserError(f"split {split!r}; expected {' or '.join(SPLITS)}, the splits that emoji have")
    rows = [row for some in read_examples(data, split).values() for row, _ in some]
    names = sorted({name for row in rows for name in row.get("images", [])})
    if not names:
        raise UserError(
            f"{data}/{split}.jsonl: no row has a picture, so there is nothing to judge a codec on"
        )
    pictures = []
    for name in Random(seed).sample(names, min(n, len(names))):
        with Image.open(data / name) as picture:
            pictures.append(np.asarray(picture.convert("RGB")))
    if len(sizes := {picture.shape for picture in pictures}) > 1:
        raise UserError(
            f"{data}: pictures of {len(sizes)} sizes; expected one size, as `data make emoji` draws"
        )
    return pictures
