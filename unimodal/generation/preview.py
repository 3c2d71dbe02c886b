"""What a model in training draws for documents that hold a drawn picture: the pictures of sample sheets."""

import torch
from PIL import Image as PILImage

from unimodal.data.document import Document, Image, Text, Turn
from unimodal.generation.converse import Converser, Drawn
from unimodal.generation.settings import drawing, guidance_of
from unimodal.model.unified import UnifiedModel
from unimodal.sequence.tokenizer import Tokenizer


def until_drawn(document: Document, plans: bool = False) -> Document:
    """The document up to its first drawn picture, left open for the model to draw it.

    plans  what the assistant says before the picture goes too: the model says it for itself
    """
    turns: list[Turn] = []
    for turn in document.turns:
        parts = []
        for part in turn.parts:
            if isinstance(part, Image) and part.trained:
                begun = (Turn(turn.role, tuple(parts)),) if parts and not plans else ()
                return Document((*turns, *begun), document.id)
            parts.append(part)
        turns.append(Turn(turn.role, tuple(parts)))
    return document


@torch.inference_mode()
def draw_documents(
    model: UnifiedModel, tokenizer: Tokenizer, documents: list[Document], seed: int
) -> list[tuple[PILImage.Image, str]]:
    """The first drawn picture of each document, as the model draws it now, with its prompt as caption."""
    mode = model.training
    model.eval()
    settings = drawing(model.config.writing, guidance_of(model.config.sampling), steps=None)
    asked = [until_drawn(document, settings.plan > 0) for document in documents]
    drawn = [None] * len(asked)
    seeds = [seed + row for row in range(len(asked))]
    for row, event in Converser(model, tokenizer, asked, settings).run(seeds):
        if isinstance(event, Drawn):
            drawn[row] = PILImage.fromarray(event.pixels)
    model.train(mode)
    captions = [
        " ".join(
            part.text.strip() for turn in document.turns[-1:] for part in turn.parts if isinstance(part, Text)
        )
        for document in asked
    ]
    return list(zip(drawn, captions))
