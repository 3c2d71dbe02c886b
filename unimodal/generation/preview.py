"""What a model in training draws for documents that hold a drawn picture: the pictures of sample sheets."""

import torch
from PIL import Image as PILImage

from unimodal.data.document import Document, Image, Text, Turn
from unimodal.diffusion.guidance import Guidance
from unimodal.generation.converse import Converser, Settings
from unimodal.model.unified import UnifiedModel
from unimodal.sequence.tokenizer import Tokenizer


def until_drawn(document: Document) -> Document:
    """The document up to its first drawn picture, left open for the model to draw it."""
    turns: list[Turn] = []
    for turn in document.turns:
        parts = []
        for part in turn.parts:
            if isinstance(part, Image) and part.trained:
                return Document(
                    (*turns, Turn(turn.role, tuple(parts))) if parts else tuple(turns), document.id
                )
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
    asked = [until_drawn(document) for document in documents]
    sampling = model.config.sampling
    settings = Settings(writes=False, guidance=Guidance(sampling.guidance, sampling.image_guidance))
    drawn = [None] * len(asked)
    seeds = [seed + row for row in range(len(asked))]
    for row, event in Converser(model, tokenizer, asked, settings).run(seeds):
        drawn[row] = PILImage.fromarray(event.pixels)
    model.train(mode)
    captions = [
        " ".join(part.text.strip() for part in document.turns[-1].parts if isinstance(part, Text))
        for document in asked
    ]
    return list(zip(drawn, captions))
