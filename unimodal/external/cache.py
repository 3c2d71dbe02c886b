"""What a frozen reader made of a prompt, kept on disk.

    FOLDER/READER-LAYERS/shard-....safetensors    hidden states (T, K, D), by a hash of what the prompt says

All that the reader reads by (its weights, tokenizer, template and processor) is hashed in the folder's name,
and a prompt's words and pixels are its key, so a row that changed, a reader that changed or another tapped
layer is another entry, and nothing is ever stale.  A dropped condition makes another prompt.  Shards are
written whole and renamed; several processes may share a folder.
"""

import hashlib
import os
import uuid
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unimodal.connectors.connector import Appended
from unimodal.data.document import Document, Text
from unimodal.errors import UserError
from unimodal.readers.reader import Reader

SHARD_BYTES = 64 * 2**20  # that wait in memory before they are written


class ConditionCache:
    """Reads prompts with a reader, each of them once.

    folder  is made if it is not there
    sha256  of all that the reader reads by, and of what is appended to every prompt
    layers  that are tapped

    Raises UserError if a shard is damaged or nothing can be written.
    """

    def __init__(self, folder: Path, sha256: str, layers: list[int], shard_bytes: int = SHARD_BYTES):
        self.folder = folder / f"{sha256}-{'-'.join(map(str, layers))}"
        self.layers, self.shard_bytes = layers, shard_bytes
        self.read_anew = 0  # prompts that the reader had to read
        self._waiting: dict[str, Tensor] = {}
        self._shard_of: dict[str, safe_open] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(self.folder.glob("shard-*.safetensors")):
                self._open(path)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"the cache of conditions {self.folder} cannot be used ({error}). Delete it, or name another."
            ) from error

    def __len__(self) -> int:
        return len(self._shard_of) + len(self._waiting)

    def _open(self, path: Path) -> None:
        opened = safe_open(path, framework="pt")
        self._shard_of |= dict.fromkeys(opened.keys(), opened)

    def read(
        self,
        reader: Reader,
        prompts: list[Document],
        device: torch.device,
        appended: Appended | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `reader.read(prompts, layers, appended)`, with the positions that are real at the start of each
        row.  What is appended must always be the same, and part of the hash."""
        keys = [key_of(prompt) for prompt in prompts]
        missing = {
            key: prompt
            for key, prompt in zip(keys, prompts)
            if key not in self._waiting and key not in self._shard_of
        }
        if missing:
            hidden, mask = reader.read(list(missing.values()), self.layers, appended)
            for key, states, real in zip(missing, hidden, mask):
                self._waiting[key] = states[real].cpu().clone()
            self.read_anew += len(missing)
        rows = [self._entry(key).to(device) for key in keys]
        if sum(states.nbytes for states in self._waiting.values()) >= self.shard_bytes:
            self.flush()
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = torch.arange(int(lengths.max()), device=device) < lengths[:, None]
        return pad_sequence(rows, batch_first=True), mask

    def _entry(self, key: str) -> Tensor:
        if key in self._waiting:
            return self._waiting[key]
        try:
            return self._shard_of[key].get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise UserError(f"a shard in {self.folder} is damaged ({error}). Delete the folder.") from error

    def flush(self) -> None:
        """Write what waits in memory as one more shard."""
        if not self._waiting:
            return
        path = self.folder / f"shard-{uuid.uuid4().hex}.safetensors"
        partial = path.with_name(f".partial-{path.name}")
        try:
            save_file(self._waiting, partial)
            os.replace(partial, path)
            self._open(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"the cache of conditions {self.folder} cannot be written: {error}") from error
        self._waiting = {}


def key_of(prompt: Document) -> str:
    """A hash of everything that a prompt says and shows, and of who says it."""
    digest = hashlib.sha256()
    for turn in prompt.turns:
        digest.update(f"turn {turn.role}\n".encode())
        for part in turn.parts:
            if isinstance(part, Text):
                content = part.text.encode()
                digest.update(f"text {len(content)}\n".encode() + content)
            else:
                digest.update(f"image {part.pixels.shape}\n".encode() + part.pixels.tobytes())
    return digest.hexdigest()
