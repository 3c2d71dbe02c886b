"""A dropped condition is the same in training as in drawing, bit for bit."""

import json

import numpy as np
import pytest
import torch

import unimodal
from tests.documents import picture
from tests.external.make import CONNECTORS, external_model, save_beside_reader
from unimodal.data.document import Document, Image, Text, Turn
from unimodal.diffusion.guidance import Guidance
from unimodal.errors import UserError
from unimodal.external.draw import draw
from unimodal.model.config import DropTable
from unimodal.training.drawn_rows import DrawnRows

SHOWN = picture(np.random.default_rng(0))
ASKED = Document((Turn("user", (Image(SHOWN), Text("make it green"))),))
WORDS = Document((Turn("user", (Text("make it green"),)),))
BRANCHES = {"text": 1, "both": 2}  # where drawing has them, behind the row that was told everything


class Rows:
    """A mixture of one row."""

    def document(self, number):
        """The row, whatever its number."""
        return Document((*ASKED.turns, Turn("assistant", (Image(SHOWN, True),))), "row")


def seen(model, name):
    """What a method of the model takes and gives from now on."""
    calls, method = [], getattr(model, name)

    def call(argument, *more):
        given = method(argument, *more)
        calls.append((argument, given))
        return given

    setattr(model, name, call)
    return calls


@pytest.mark.parametrize("kind", ["text", "image", "both"])
@pytest.mark.parametrize("connector", CONNECTORS)
@pytest.mark.parametrize("reference", ["vlm", "vae_seq", "dual"])
def test_a_dropped_row_is_the_branch_that_drawing_takes_for_it(kind, connector, reference):
    """A row whose picture was dropped is drawing from its words alone, which has no branch of its own."""
    model = external_model(connector, reference=reference)
    table = DropTable(**dict.fromkeys(("text", "image", "both"), 0.0) | {kind: 1.0})
    prompt, drawn = DrawnRows(Rows(), model.multiple, 8, table, seed=0)(0)
    told, conditions = seen(model, "read"), []
    model.connector.register_forward_hook(lambda module, arguments, out: conditions.append(out))
    model.train()([prompt], [drawn], torch.Generator().manual_seed(0))
    (trained,), (before, _) = told.pop()[0], conditions.pop()
    references = model.references([trained])

    model.eval()
    guidance = Guidance(text=3.0, image=1.5)
    asked = WORDS if kind == "image" else ASKED
    with torch.no_grad():
        draw(model, [asked], (8, 8), [torch.Generator().manual_seed(0)], guidance, steps=1)
        null = told.pop()[0][BRANCHES.get(kind, 0)]
        alone, _ = model.connector(*model.read([null]))  # in a batch of one, as the row was
    assert torch.equal(before, alone)
    for ours, theirs in zip(references, model.references([null]), strict=True):
        assert (ours is None) == (theirs is None) == (kind != "text" or reference == "vlm")
        assert ours is None or torch.equal(ours, theirs)


def test_a_saved_model_with_another_null_is_refused(tmp_path):
    save_beside_reader(tmp_path)
    file = tmp_path / "model" / "config.json"
    entries = json.loads(file.read_text())
    assert entries["null"] == "removed" and entries["drop"] == {"text": 0.2, "image": 0.1, "both": 0.1}
    for wrong in ({"null": "zeros"}, {"drop": {"text": 0.7, "image": 0.2, "both": 0.2}}):
        file.write_text(json.dumps(entries | wrong))
        with pytest.raises(UserError, match="does not describe an external model"):
            unimodal.load(tmp_path / "model")
