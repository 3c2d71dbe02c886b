"""An external model as the loop's trainee: prompts and the pictures that are drawn from them.

Rows that draw nothing teach it nothing; how many there are is told before a run, and counted in its log.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unimodal.attention.door import computed_by
from unimodal.data.document import Document, Text
from unimodal.data.mixture import Mixture
from unimodal.diffusion.guidance import Guidance
from unimodal.external.folder import save_external
from unimodal.external.model import ExternalModel
from unimodal.images.codec import Codec
from unimodal.training.config import Recipe
from unimodal.training.drawn_rows import DrawnBatch, DrawnRows
from unimodal.training.trainee import Losses
from unimodal.training.unified_trainee import SAMPLED, SAMPLES_START

COUNTED = 64  # pictures whose operations are counted; what comes after them is taken to cost as much


class ExternalTrainee:
    """See `unimodal.training.trainee.Trainee`."""

    def __init__(
        self,
        model: ExternalModel,
        mixture: Mixture,
        batch_size: int,
        weights: dict[str, float],
        seed: int,
        dtype: torch.dtype = torch.float32,
    ):
        self.module, self.batch_size, self.dtype = model, batch_size, dtype
        self.weights = {name: w for name, w in weights.items() if name != "embedding" or model.regresses}
        config = model.config
        size, table, reader = config.image_size, config.drop, config.reader.name
        writes = model.reader.writes
        self.rows = DrawnRows(mixture, model.multiple, size, table, seed, config.plans, reader, writes)
        self._costs: list[float] = []  # of the pictures that were counted

    def batches(self, start_state: dict | None, rank: int, world: int) -> Iterator[DrawnBatch]:
        """Pictures of rows rank, rank + world, ... in batches."""
        first = start_state["next"] if start_state else rank
        stream = self.rows.from_number(first, world)
        while True:
            numbers, asked, pictures = zip(*(next(stream) for _ in range(self.batch_size)))
            after = numbers[-1] + world
            read = (after - first) // world
            yield DrawnBatch(list(asked), list(pictures), self.module.codec.stride, {"next": after}, read)
            first = after

    def about(self) -> list[str]:
        """What to know of the rows before a run."""
        return self.rows.about()

    def about_rows(self, recipe: Recipe, batches: Sequence[DrawnBatch]) -> dict[str, str]:
        """Lines about the rows for a person, by name."""
        drawn = recipe.train.gradient_accumulation_steps * self.batch_size
        said = " ".join(self.about())
        return {"pictures a step": f"{drawn:,}"} | ({"rows": said} if said else {})

    def count(self, batch: DrawnBatch) -> dict[str, float]:
        """Latent cells, at every noise level at which they are drawn, and pictures."""
        counts = {"image": float(batch.tokens * self.module.config.times.copies)}
        return counts | ({"embedding": float(len(batch.pictures))} if self.module.regresses else {})

    def losses(self, batch: DrawnBatch, generator: torch.Generator) -> Losses:
        """Loss sums of one batch, and every noised picture's loss at its noise level."""
        out = self.module(batch.prompts, batch.pictures, generator)
        sums = {"image": out.image} | ({} if out.embedding is None else {"embedding": out.embedding})
        return Losses(sums, self.weights, {"image": (out.image_each, out.times)})

    def flops(self, batch: DrawnBatch) -> float:
        """What torch counts in forward and backward of every picture alone, so that padding costs nothing.

        A codec's encoding is left out, the reader's own included, as it is for the unified model: all that
        share a codec spend the same.
        """
        if len(self._costs) >= COUNTED:
            return sum(self._costs) / len(self._costs) * len(batch.pictures)
        costs = [self._count_flops(batch.alone(row)) for row in range(len(batch.pictures))]
        self._costs += costs
        return sum(costs)

    def _count_flops(self, batch: DrawnBatch) -> float:
        """Gradients are computed beside those of the module, which stay as they are."""
        module = self.module
        learned = [weight for weight in module.parameters() if weight.requires_grad]

        def step() -> None:
            losses = self.losses(batch, torch.Generator(module.device).manual_seed(0))
            torch.autograd.grad(sum(losses.sums.values()), learned, allow_unused=True)

        kept, module.cache = module.cache, None  # what is kept would cost nothing the second time
        try:
            with torch.enable_grad():
                return _counted(step, [part for part in module.modules() if isinstance(part, Codec)])
        finally:
            module.cache = kept

    def samples(self, seed: int) -> Image.Image:
        """The first rows that draw, beyond those that training reads, as the model draws them now."""
        from unimodal.evaluation.sheet import sheet
        from unimodal.external.draw import draw
        from unimodal.external.model import alike

        stream = self.rows.from_number(SAMPLES_START, whole=True)
        asked, truth = zip(
            *((prompt, picture) for _, prompt, picture in (next(stream) for _ in range(SAMPLED)))
        )
        sampling = self.module.config.sampling
        guidance = Guidance(sampling.guidance, sampling.image_guidance)
        tiles: list = [None] * SAMPLED
        for rows in alike([picture.shape[:2] for picture in truth]):
            some = [asked[row] for row in rows]
            generators = [torch.Generator().manual_seed(seed + row) for row in rows]
            for row, drawn in zip(
                rows, draw(self.module, some, truth[rows[0]].shape[:2], generators, guidance)
            ):
                tiles[row] = (Image.fromarray(drawn), _words(asked[row]))
        return sheet(tiles, columns=6)

    def hint(self, folder: Path) -> str:
        """How to use what was trained."""
        return f"Use it with `unimodal chat {folder}`"

    def save(self, folder: Path, module: ExternalModel) -> None:
        """A model folder."""
        if module.cache is not None:
            module.cache.flush()
        save_external(folder, module, self.dtype)


def _counted(call: Callable[[], Any], codecs: list[Codec]) -> float:
    """The operations that torch counts in a call, without what codecs encode in it.

    Torch does not count every fused kernel, so attention is computed as it is defined, over all pairs.
    """
    encoding = 0
    counter = FlopCounterMode(display=False)

    def apart(encode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def encoded(signal: Tensor) -> Tensor:
            nonlocal encoding
            before = counter.get_total_flops()
            made = encode(signal)
            encoding += counter.get_total_flops() - before
            return made

        return encoded

    try:
        for codec in codecs:
            codec.encode = apart(codec.encode)
        with computed_by("naive"), sdpa_kernel(SDPBackend.MATH), counter:
            call()
    finally:
        for codec in codecs:
            del codec.encode
    return float(counter.get_total_flops() - encoding)


def _words(prompt: Document) -> str:
    """What was said last before the picture."""
    said = [[p.text.strip() for p in turn.parts if isinstance(p, Text)] for turn in prompt.turns]
    return next((" ".join(texts) for texts in reversed(said) if texts), "")
