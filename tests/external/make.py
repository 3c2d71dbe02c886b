"""Tiny external models: the tiny decoder as reader, raw pixel patches as codec."""

from pathlib import Path

import torch

from tests.documents import tokenizer
from tests.models import tiny_model
from unimodal.external.config import ExternalConfig
from unimodal.external.folder import noted, save_external
from unimodal.external.model import ExternalModel
from unimodal.external.verbs import External
from unimodal.images.codec import PixelPatches
from unimodal.model.config import Writing
from unimodal.model.folder import save_model
from unimodal.readers.own import OwnReader

CONNECTORS = {
    "queries": {"count": 4, "width": 16, "depth": 1, "heads": 2},
    "qformer": {"count": 4, "width": 16, "depth": 2, "heads": 2},
    "hidden": {"refiner": 1, "heads": 2},
    "prefilled": {"side": 2, "width": 16},
}
DIT = {"width": 32, "depth": 2, "heads": 2, "condition": 16}


def config(connector: str = "queries", **changes) -> ExternalConfig:
    """A configuration whose reader is the tiny model."""
    fields = {
        "reader": {"name": "tiny"},
        "connector": {"kind": connector, "options": CONNECTORS[connector]},
        "denoiser": {"kind": "dit", "options": DIT},
        "image_size": 8,
        "sampling": {"steps": 3, "guidance": 2.0, "image_guidance": 1.5},
        "drop": {"text": 0.2, "image": 0.1, "both": 0.1},
    }
    return ExternalConfig.model_validate(fields | changes)


def external_model(connector: str = "queries", seed: int = 0, reader=None, **changes) -> ExternalModel:
    """A random model whose every weight matters; the reader is the tiny model unless another is given."""
    reader = reader or OwnReader(tiny_model(seed), tokenizer())
    torch.manual_seed(seed + 1)
    model = ExternalModel(config(connector, **changes), reader, PixelPatches(4))
    for part in (model.connector, model.denoiser):
        for weight in part.parameters():
            torch.nn.init.normal_(weight, 1.0 if weight.dim() == 1 and weight.mean() > 0.4 else 0.0, 0.15)
    return model.eval()


def external(connector: str = "queries", seed: int = 0, reader=None, **changes) -> External:
    """A loaded one."""
    return External(external_model(connector, seed, reader, **changes), "tiny-external")


def save_beside_reader(folder: Path) -> ExternalModel:
    """A model saved as folder/model, which names its reader, saved as folder/reader."""
    model = external_model()
    save_model(folder / "reader", model.reader.model, tokenizer())
    note, _ = noted("unimodal", str(folder / "reader"))
    model.config = model.config.model_copy(update={"reader": note})
    save_external(folder / "model", model)
    return model


def planner(plan: int = 6, seed: int = 0, **changes) -> OwnReader:
    """A tiny reader that says so many tokens before a picture which it has to draw."""
    writing = Writing(plan=plan, temperature=1.0, top_p=0.9)
    return OwnReader(tiny_model(seed, writing=writing, **changes), tokenizer())
