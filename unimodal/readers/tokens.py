"""Words without a language model: what a denoiser's own small text encoder begins with.

Each position says which token stands there (a row of the identity) and where (sinusoids), and nothing more.
The first linear layer of a connector is then an embedding table, and its refiner layers are a text encoder
that is trained together with the denoiser, as a text-to-image model brings one of its own.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.utils.rnn import pad_sequence

from unimodal.connectors.connector import Appended
from unimodal.data.document import Document, Text
from unimodal.errors import UserError
from unimodal.generation.converse import Event, Settings
from unimodal.model.config import Writing
from unimodal.readers.reader import Draw
from unimodal.sequence.spans import Grid
from unimodal.sequence.tokenizer import Tokenizer

PLACES = 64  # numbers that say where a token stands
PERIOD = 1000.0  # of the slowest of them


class TokensReader(nn.Module):
    """See `unimodal.readers.reader`; it computes nothing, sees no pictures and cannot answer.

    Raises UserError for what a reader without layers cannot do.
    """

    causal, sees, writes, codec = False, False, False, None
    layers, seen, multiple = 0, 1, 1
    writing = Writing()

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.tokenizer, self.width = tokenizer, len(tokenizer) + PLACES
        rates = PERIOD ** -(torch.arange(PLACES // 2) / (PLACES // 2))
        self.register_buffer("rates", rates, persistent=False)

    def read(
        self, prompts: list[Document], layers: list[int], appended: Appended | None = None
    ) -> tuple[Tensor, Tensor]:
        """See Reader."""
        if appended is not None:
            raise UserError(
                "the reader `tokens` has no layers, so nothing would be read behind a prompt. Use the "
                "connector hidden or qformer, whose own layers are the text encoder."
            )
        rows = [torch.tensor(self._ids(prompt), device=self.rates.device) for prompt in prompts]
        lengths = torch.tensor([len(row) for row in rows], device=self.rates.device)
        ids = pad_sequence(rows, batch_first=True)
        place = torch.arange(ids.shape[1], device=ids.device)
        angles = place[:, None] * self.rates
        where = torch.cat([angles.sin(), angles.cos()], dim=-1).expand(len(rows), -1, -1)
        hidden = torch.cat([one_hot(ids, len(self.tokenizer)).float(), where], dim=-1)
        return hidden[:, :, None].expand(-1, -1, len(layers), -1), place < lengths[:, None]

    def _ids(self, prompt: Document) -> list[int]:
        """All that is said: the first turn without its role, as in other readers, and a mark at the end."""
        ids: list[int] = []
        for number, turn in enumerate(prompt.turns):
            if number:
                ids += [self.tokenizer.im_start, *self.tokenizer.encode(f"{turn.role}\n")]
            for part in turn.parts:
                ids += self.tokenizer.encode(part.text) if isinstance(part, Text) else []
        return [*ids, self.tokenizer.im_end]

    def see(self, pictures: list[np.ndarray]) -> list[tuple[Tensor, Grid]]:
        """Refuse: it sees no pictures."""
        raise UserError(
            "the reader `tokens` sees no pictures, so a connector cannot learn what it would see: use "
            "another connector than prefilled."
        )

    def converse(
        self, documents: list[Document], settings: Settings, seeds: list[int], side: int, draw: Draw
    ) -> Iterator[tuple[int, Event]]:
        """Refuse: it writes no words."""
        raise UserError(
            "this model has a text encoder and no language model: it draws and edits when told to, and "
            "cannot answer. Bridge its denoiser to a reader (recipes/external/bridge.yaml) to talk with it."
        )


def load_tokens(folder: Path) -> TokensReader:
    """The tokenizer of a model folder as a reader.  Raises UserError if there is none."""
    return TokensReader(Tokenizer.load(folder))


def tokens_fingerprint(folder: Path) -> str:
    """SHA-256 of the tokenizer, which is all of the folder that is read."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(f"no tokenizer at {file}; expected the folder of a saved model or tokenizer.")
    return hashlib.sha256(file.read_bytes()).hexdigest()
