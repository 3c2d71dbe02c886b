"""The unified model as the loop's trainee.

Rows come from a mixture, lose a condition now and then (the drop table), are fitted, laid out and packed;
the losses are the model's own.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unimodal.adapters.base import Note
from unimodal.attention.door import explain_backend
from unimodal.data.document import Document
from unimodal.data.mixture import Mixture
from unimodal.images.losses import absolute_error, squared_error
from unimodal.images.signal import to_signal
from unimodal.model.config import DropTable
from unimodal.model.folder import save_model
from unimodal.model.unified import UnifiedModel
from unimodal.paths.path import weightless
from unimodal.sequence.pack import Pack, Packer, pack_in_order
from unimodal.sequence.tokenizer import Tokenizer
from unimodal.sequence.writer import NO_LABEL
from unimodal.training.config import DataSection, Recipe
from unimodal.training.flops import Costs
from unimodal.training.row_maker import RowMaker
from unimodal.training.row_statistics import held_out_statistics, row_statistics
from unimodal.training.trainee import Losses

SAMPLED = 12  # pictures on a sample sheet
SAMPLES_START = 1_000_000_000  # rows far beyond those that training reads


class UnifiedTrainee:
    """See `unimodal.training.trainee.Trainee`."""

    def __init__(
        self,
        model: UnifiedModel,
        tokenizer: Tokenizer,
        mixture: Mixture,
        data: DataSection,
        weights: dict[str, float],
        train_codec: bool,
        dtype: torch.dtype = torch.float32,
        adapter: Note | None = None,
        held: Mixture | None = None,
    ):
        self.module, self.tokenizer, self.data, self.dtype = model, tokenizer, data, dtype
        self.adapter = adapter  # of what, if the model has an adapter in it and this alone is trained
        self.held = held  # rows that are not trained on
        self.train_codec = train_codec
        self.weights = {name: weight for name, weight in weights.items() if name != "codec" or train_codec}
        config = model.config
        self.rows = RowMaker(
            mixture,
            tokenizer,
            weightless(model.path),
            model.multiple,
            config.image_size,
            config.drop,
            data.seed,
            model.block,
            model.vision_grid,
            config.limit,
        )
        self._costs = Costs(model)

    def batches(self, start_state: dict | None, rank: int, world: int) -> Iterator[Pack]:
        """Packs of rows rank, rank + world, ..."""
        return iter(Packer(self.rows, self.data.tokens, first=rank, stride=world, state=start_state))

    def held_out(self) -> Iterator[Pack]:
        """Packs of the held-out rows, with every condition there."""
        rows = replace(self.rows, mixture=self.held, table=DropTable(text=0, image=0, both=0))
        return pack_in_order(map(rows, range(self.held_rows)), self.data.tokens)

    @property
    def held_rows(self) -> int:
        """How many rows an evaluation takes; of one file, none is taken twice."""
        lengths = [source.length for source in self.held.sources]
        return min([self.data.eval_rows, *(length for length in lengths if length and len(lengths) == 1)])

    def room(self) -> Callable[[Document, int], int | None]:
        """What tells of a row whether it fits into a pack (see `RowMaker.room`)."""
        return self.rows.room()

    def farther(self) -> Callable[[Document, int], int | None]:
        """What tells of a row whether it reaches beyond the model's limit (see `RowMaker.farther`)."""
        return self.rows.farther()

    @property
    def limit(self) -> int | None:
        """Rotary positions that a document may take; None: any number."""
        return self.rows.limit

    def count(self, batch: Pack) -> dict[str, float]:
        """Trained tokens, drawn image positions, and pictures."""
        counts = {
            "text": int((batch.labels != NO_LABEL).sum()),
            "image": sum(span.length for span in batch.images if span.kind == "target"),
        }
        return counts | ({"codec": len(batch.pixels)} if self.train_codec else {})

    def losses(self, batch: Pack, generator: torch.Generator) -> Losses:
        """Loss sums of one pack, and every drawn image's loss at its noise level."""
        out = self.module(batch, generator)
        sums = {"text": out.text, "image": out.image}
        if self.train_codec:
            sums["codec"] = self._reconstruction(batch)
        return Losses(sums, self.weights, {"image": (out.image_each, out.times)})

    def _reconstruction(self, batch: Pack) -> torch.Tensor:
        total = torch.zeros((), device=self.module.device)
        sizes: dict[tuple[int, ...], list[np.ndarray]] = {}
        for picture in batch.pixels:
            sizes.setdefault(picture.shape, []).append(picture)
        for pictures in sizes.values():
            signal = to_signal(np.stack(pictures), self.module.device)
            again = self.module.codec.restore(self.module.codec.encode(signal))
            error = absolute_error(again, signal).mean() + squared_error(again, signal).mean()
            total = total + error * len(pictures)
        return total

    def flops(self, batch: Pack) -> float:
        """See `unimodal.training.flops`."""
        return self._costs.pack(batch)

    def attention(self, half: bool) -> str:
        """Which backend computes attention, in half precision or not, and why."""
        return "{}: {}".format(*explain_backend(self.module.device.type, half, pack=True))

    def about(self) -> list[str]:
        """What was chosen for the user: of an adapter, what is trained with it unasked."""
        if not self.adapter or self.module.vision_in is None:
            return []
        return ["the projection of the vision tower (vision_in) is trained in full, beside the adapter"]

    def about_rows(self, recipe: Recipe, packs: list[Pack]) -> dict[str, str]:
        """Lines about the rows for a person, by name."""
        held = held_out_statistics(self.held, self.held_rows, recipe) if self.held else {}
        return row_statistics(self.rows, recipe, packs) | held

    def samples(self, seed: int) -> Image.Image | None:
        """The first rows in which a picture is drawn, each beside what the model draws for it now."""
        from unimodal.evaluation.sheet import sheet
        from unimodal.generation.preview import draw_documents

        documents: list[Document] = []
        for number in range(SAMPLES_START, SAMPLES_START + 50 * SAMPLED):
            document = self.rows.document(number)
            if any(image.trained for image in document.images):
                documents.append(document)
            if len(documents) == SAMPLED:
                break
        if not documents:
            return None
        return sheet(draw_documents(self.module, self.tokenizer, documents, seed), columns=6)

    @property
    def product(self) -> str:
        """What is trained: the model, or an adapter for it."""
        return "adapter" if self.adapter else "model"

    def hint(self, folder: Path) -> str:
        """How to use what was trained."""
        return f"Use it with `unimodal chat {'--adapter ' if self.adapter else ''}{folder}`"

    def save(self, folder: Path, module: UnifiedModel) -> None:
        """A complete model folder, or that of the adapter alone."""
        if self.adapter:
            from unimodal.adapters.folder import save_adapter

            save_adapter(folder, module, self.adapter, self.dtype)
        else:
            save_model(folder, module, self.tokenizer, self.dtype)
