"""A trainee small enough to check by hand: linear regression whose batches have uneven counts."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from unimodal.errors import UserError
from unimodal.training import config
from unimodal.training.config import Recipe, Section, parse_recipe
from unimodal.training.trainee import Losses

KIND = "tests.training.toy:ToySection"


@dataclass
class ToyBatch:
    x: torch.Tensor
    y: torch.Tensor
    sample_ids: list[str]
    state: dict[str, Any]
    parts: list[int] = field(default_factory=list)
    budget: int = 8

    @property
    def tokens(self) -> int:
        return len(self.x)


class ToyModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 4)])
        self.norm = nn.LayerNorm(4)
        self.embedding = nn.Embedding(3, 4)
        self.query = nn.Parameter(torch.zeros(1, 4))
        self.head = nn.Linear(4, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = x + self.query + self.embedding.weight.mean(0)
        hidden = self.blocks[1](torch.tanh(self.blocks[0](hidden)))
        return self.head(self.norm(hidden))[:, 0]


class ToyTrainee:
    """Group g of `parts` groups has (g % 4) + 1 rows; a batch is `join` groups of the shard's own."""

    def __init__(self, section: "ToySection") -> None:
        self.section = section
        self.module = ToyModule()

    def batches(self, start_state: dict[str, Any] | None, rank: int, world: int) -> Iterator[ToyBatch]:
        number = start_state["number"] if start_state else 0
        while True:
            groups = [(number * world + rank) * self.section.join + k for k in range(self.section.join)]
            rows = [self._rows(group) for group in groups]
            number += 1
            x, y = torch.cat([r[0] for r in rows]), torch.cat([r[1] for r in rows])
            if self.section.bad_row in groups:
                raise UserError(f"toy:{self.section.bad_row}: this row is wrong; mend it.")
            if self.section.poison is not None and self.section.poison in groups:
                y = y * float("nan")
            ids = [f"toy:{group}" for group in groups]
            yield ToyBatch(x, y, ids, {"number": number}, groups)

    def _rows(self, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        random = np.random.default_rng([7, group])
        x = torch.from_numpy(random.normal(size=(group % 4 + 1, 4))).float()
        return x, torch.sin(x.sum(-1))

    def held_out(self) -> Iterator[ToyBatch]:
        """Three batches of groups that training does not reach, of 1, 2 and 3 rows."""
        for group in (4000, 4001, 4002):
            x, y = self._rows(group)
            yield ToyBatch(x, y, [f"toy:{group}"], {}, [group])

    def count(self, batch: ToyBatch) -> dict[str, float]:
        return {"fit": len(batch.x), "size": len(batch.x)}

    def losses(self, batch: ToyBatch, generator: torch.Generator) -> Losses:
        time.sleep(self.section.pause)
        x = batch.x
        if self.section.noise:
            x = x + self.section.noise * torch.randn(x.shape, generator=generator)
        error = (self.module(x).float() - batch.y).square()
        places = torch.linspace(0, 1, len(error))
        sums = {"fit": error.sum(), "size": self.module.head.weight.square().sum() * len(error)}
        return Losses(sums, {"fit": 1.0, "size": 0.1}, {"fit": (error.detach(), places)})

    def flops(self, batch: ToyBatch) -> float:
        return 6.0 * len(batch.x) * 52

    def samples(self, seed: int) -> Image.Image | None:
        red = int(self.module.head.weight.abs().sum().item() * 20) % 256
        return Image.new("RGB", (4, 4), (red, seed % 256, 0))

    def save(self, folder: Path, module: nn.Module) -> None:
        save_file({k: v.clone() for k, v in module.state_dict().items()}, folder / "model.safetensors")


class ToySection(Section):
    kind: Literal["toy"] = "toy"
    join: int = 1
    noise: float = 0.0
    pause: float = 0.0
    poison: int | None = None
    bad_row: int | None = None

    def build(self, recipe: Recipe, checkpoint: Path | None = None) -> ToyTrainee:
        return ToyTrainee(self)


def toy_recipe(output: Path, model: dict[str, Any] | None = None, workers: int = 0, **train: Any) -> Recipe:
    """A recipe of the toy, with quick defaults."""
    config.KINDS["toy"] = KIND
    held = [{"source": "shapes"}] if train.get("eval_steps") else []  # named, but the toy has its own
    settings = {"steps": 6, "learning_rate": 0.01, "precision": "fp32", "logging_steps": 1, "threads": 1}
    raw = {
        "model": {"kind": "toy", **(model or {})},
        "data": {"workers": workers, "eval_sources": held},
        "train": settings | train,
        "output": {"dir": str(output)},
    }
    return parse_recipe(raw, "toy.yaml")
