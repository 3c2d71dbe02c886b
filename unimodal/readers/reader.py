"""What every frozen reader does: read prompts to hidden states, say what it sees, and answer in words.

B rows, T positions, K tapped layers, D width, P positions and E width of a picture's embeddings.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from unimodal.connectors.connector import Appended
from unimodal.data.document import Document
from unimodal.generation.converse import Event, Settings
from unimodal.images.codec import Codec
from unimodal.model.config import Writing
from unimodal.sequence.spans import Grid

Draw = Callable[[list[Document], tuple[int, int], list[torch.Generator]], list[np.ndarray]]
"""Documents, pixels (height, width), a generator a document -> the pictures that come next, uint8."""


class Reader(Protocol):
    """The contract of `readers/*.py`; each is an nn.Module whose weights nothing moves.

    layers, width  number of layers and width of hidden states
    seen           E
    codec          by which it reads pictures, or None
    multiple       what the sides of pictures must be multiples of, in pixels
    causal         whether positions that are appended can only see those before them
    sees           whether it sees pictures, or reads the words around them alone
    writes         whether it is a language model, which can answer
    writing        how it writes when nobody says; a `plan` above 0: it says something before a picture
    """

    layers: int
    width: int
    seen: int
    codec: Codec | None
    multiple: int
    causal: bool
    sees: bool
    writes: bool
    writing: Writing

    def read(
        self, prompts: list[Document], layers: list[int], appended: Appended | None = None
    ) -> tuple[Tensor, Tensor]:
        """Hidden states (B, T, K, D) of `layers`, and which of their positions are real (B, T).

        prompts   conversations up to where the assistant is to go on
        layers    0 embeddings, `self.layers` the last layer, normalised
        appended  positions to put behind each prompt: then the states are those of these alone, and gradients
                  reach what they are made of.  Else they are those of the prompt, without what the chat
                  template puts before its first word, and without gradients
        """
        ...

    def see(self, pictures: list[np.ndarray]) -> list[tuple[Tensor, Grid]]:
        """The image encoder's embeddings (P, E) and grid of each uint8 (H, W, 3) picture; no gradients."""
        ...

    def converse(
        self, documents: list[Document], settings: Settings, seeds: list[int], side: int, draw: Draw
    ) -> Iterator[tuple[int, Event]]:
        """(row, event) of the assistant's turn in every document until all have ended.

        side  of a picture whose size nothing says, in pixels
        draw  makes the pictures, if the reader has a way to ask for one
        """
        ...
