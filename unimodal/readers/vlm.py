"""Any image-text-to-text model of transformers as a frozen reader (Qwen2.5-VL, SmolVLM, LLaVA, ...).

Prompts go through the model's own processor and chat template, weights stay in their own precision.  Families
differ in how they pad pictures and count positions, so prompts are read one by one and padded afterwards: a
batch is exactly its singles.  Such a model has no way to ask for a picture; in a conversation it writes.
"""

from collections.abc import Iterator
from functools import lru_cache
from inspect import signature
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image as PILImage
from torch import Tensor, nn

from unimodal.connectors.connector import Appended
from unimodal.data.document import Document, Text, Turn
from unimodal.data.document import Image as Picture
from unimodal.errors import UserError
from unimodal.generation.converse import Event, Piece, Settings
from unimodal.model.config import Writing
from unimodal.readers.processor import LOCAL, load_processor
from unimodal.readers.reader import Draw
from unimodal.sequence.spans import Grid


class VlmReader(nn.Module):
    """See `unimodal.readers.reader`.

    model      of AutoModelForImageTextToText
    processor  its AutoProcessor
    """

    causal, sees, writes, codec = True, True, True, None
    multiple = 1  # the processor brings pictures to its own sizes
    writing = Writing()  # it has no way to ask for a picture, so it says nothing before one

    def __init__(self, model: nn.Module, processor: Any):
        super().__init__()
        self.model, self.processor = model.requires_grad_(False).eval(), processor
        text = model.config.get_text_config()
        self.layers, self.width, self.seen = text.num_hidden_layers, text.hidden_size, text.hidden_size
        self._prefix = lru_cache(self._find_prefix)
        added = processor.tokenizer.added_tokens_decoder.values()
        self._marks = [token.content for token in added if token.special]

    # ---- prompts ---------------------------------------------------------------------------------

    def inputs(self, prompt: Document) -> dict[str, Tensor]:
        """What the model takes for one prompt, up to where the assistant is to go on: (1, T) and pictures."""
        self._refuse_marks(prompt)
        turns = list(prompt.turns)
        if turns[0].role is None:
            text = "".join(part.text for part in prompt.parts() if isinstance(part, Text))
            found = self.processor.tokenizer(text, return_tensors="pt")
            return {name: found[name].to(self._device) for name in ("input_ids", "attention_mask")}
        if turns[-1].role == "assistant" and not turns[-1].parts:
            turns.pop()
        turns = turns or [Turn("user", ())]  # templates need somebody to answer
        begun = turns[-1].role == "assistant"
        try:
            found = self.processor.apply_chat_template(
                [_message(turn) for turn in turns],
                add_generation_prompt=not begun,
                continue_final_message=begun,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{prompt.id or 'a prompt'}: the reader's processor refuses it: {error}"
            ) from error
        return {name: value.to(self._device) for name, value in found.items() if isinstance(value, Tensor)}

    def _refuse_marks(self, prompt: Document) -> None:
        """Raise UserError for a text that would be read as something else than text."""
        for part in prompt.parts():
            for mark in self._marks if isinstance(part, Text) else ():
                if mark in part.text:
                    raise UserError(
                        f"{prompt.id or 'a prompt'}: the text {part.text!r:.60} has {mark!r} in it, which "
                        "this reader takes for a mark of its own. Write it otherwise."
                    )

    @property
    def _device(self) -> torch.device:
        return self.model.device

    def _find_prefix(self, role: str) -> list[int]:
        """Ids with which every conversation begins that this role begins."""
        rest = [Turn("user", (Text("x"),))] if role != "user" else []
        first, second = (
            self.inputs(Document((Turn(role, (Text(word),)), *rest)))["input_ids"][0].tolist()
            for word in ("a", "0 1")
        )
        return first[: _common(first, second)]

    def _skipped(self, prompt: Document, ids: Tensor) -> int:
        """How many ids (1, T) of a prompt come before anything that it says."""
        role = prompt.turns[0].role
        return 0 if role is None else _common(self._prefix(role), ids[0].tolist())

    # ---- reading ---------------------------------------------------------------------------------

    def read(
        self, prompts: list[Document], layers: list[int], appended: Appended | None = None
    ) -> tuple[Tensor, Tensor]:
        """See Reader."""
        rows = []
        for prompt in prompts:
            inputs = self.inputs(prompt)
            if appended is None:
                with torch.no_grad():
                    hidden = self._through(inputs, layers)
                rows.append(hidden[self._skipped(prompt, inputs["input_ids"]) :])
            else:
                rows.append(self._asked(inputs, layers, appended))
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        mask = torch.arange(int(lengths.max()), device=self._device) < lengths[:, None]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), mask

    def _through(self, inputs: dict[str, Tensor], layers: list[int]) -> Tensor:
        """Hidden states (T, K, D) of some layers."""
        base = getattr(self.model, "model", self.model)  # without the head, whose logits nobody needs
        hidden = base(**inputs, output_hidden_states=True, use_cache=False).hidden_states
        return torch.stack([hidden[layer][0] for layer in layers], dim=1)

    def _asked(self, inputs: dict[str, Tensor], layers: list[int], appended: Appended) -> Tensor:
        """Hidden states (N, K, D) of what is appended: its embeddings take the place of N last tokens'."""
        length, count = inputs["input_ids"].shape[1], appended.count
        filler = self.processor.tokenizer.eos_token_id
        fill = {"input_ids": filler if filler is not None else 0, "attention_mask": 1}
        longer = {
            name: nn.functional.pad(value, (0, count), value=fill.get(name, 0))
            if value.shape == inputs["input_ids"].shape
            else value
            for name, value in inputs.items()
        }

        def put(module: nn.Module, arguments: tuple, embeds: Tensor) -> Tensor:
            if embeds.shape[:2] != (1, length + count):
                return embeds
            prompt = embeds[:, :length].detach()
            every = torch.ones(prompt.shape[:2], dtype=torch.bool, device=prompt.device)
            return torch.cat([prompt, appended.make(prompt.float(), every).to(prompt.dtype)], dim=1)

        hook = self.model.get_input_embeddings().register_forward_hook(put)
        try:
            return self._through(longer, layers)[-count:]
        finally:
            hook.remove()

    @torch.no_grad()
    def see(self, pictures: list[np.ndarray]) -> list[tuple[Tensor, Grid]]:
        """See Reader; the image encoder's features, as the language model is given them."""
        encode = getattr(self.model, "get_image_features", None)
        if encode is None:
            raise UserError(
                f"{type(self.model).__name__} does not say what its image encoder sees. Use another "
                "connector than prefilled."
            )
        taken, found = signature(encode).parameters, []
        for picture in pictures:
            inputs = self.inputs(Document((Turn("user", (Picture(picture),)),)))
            shown = {name: value for name, value in inputs.items() if name in taken}
            cuts = encode(**shown).pooler_output
            features = torch.cat([rearrange(cut, "... e -> (...) e") for cut in cuts])
            found.append((features, self._grid(inputs, len(features))))
        return found

    def _grid(self, inputs: dict[str, Tensor], count: int) -> Grid:
        """Rows and columns of a picture's tokens."""
        if "image_grid_thw" in inputs:
            merge = self.processor.image_processor.merge_size
            _, height, width = inputs["image_grid_thw"][0].tolist()
            return height // merge, width // merge
        # Several cuts of a picture, or row ends among its tokens, may add up to a square by chance.
        cuts, side = inputs["pixel_values"].shape[:-3].numel(), isqrt(count)
        if cuts != 1 or side**2 != count:
            raise UserError(
                f"this reader makes {count} tokens of {cuts} cuts of a picture, so where each of them lies "
                "in it is not known. Use another connector than prefilled."
            )
        return side, side

    # ---- words -----------------------------------------------------------------------------------

    @torch.inference_mode()
    def converse(
        self, documents: list[Document], settings: Settings, seeds: list[int], side: int, draw: Draw
    ) -> Iterator[tuple[int, Event]]:
        """See Reader; each reply is one piece of text."""
        for row, (document, seed) in enumerate(zip(documents, seeds)):
            inputs = self.inputs(document)
            chance = {"temperature": settings.temperature, "top_p": settings.top_p}
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                ids = self.model.generate(
                    **inputs,
                    max_new_tokens=settings.max_tokens,
                    do_sample=settings.temperature > 0,
                    pad_token_id=self.processor.tokenizer.eos_token_id,
                    **(chance if settings.temperature > 0 else {}),
                )
            said = ids[0, inputs["input_ids"].shape[1] :]
            if text := self.processor.tokenizer.decode(said, skip_special_tokens=True):
                yield row, Piece(text)


def _message(turn: Turn) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": part.text}
        if isinstance(part, Text)
        else {"type": "image", "image": PILImage.fromarray(part.pixels)}
        for part in turn.parts
    ]
    return {"role": turn.role, "content": parts or [{"type": "text", "text": ""}]}


def _common(first: list[int], second: list[int]) -> int:
    """How many entries two lists begin with alike."""
    pairs = enumerate(zip(first, second))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))


def load_vlm(folder: Path) -> VlmReader:
    """A transformers checkpoint as a reader, from safetensors alone, running no code of its own.

    Raises UserError if it is none that transformers can read here.
    """
    from transformers import AutoModelForImageTextToText

    try:
        processor = load_processor(folder)
        model = AutoModelForImageTextToText.from_pretrained(
            folder, use_safetensors=True, dtype="auto", **LOCAL
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"{folder} cannot be read as an image-text-to-text model of transformers: {error}"
        ) from error
    if not hasattr(model.config, "image_token_id") or not hasattr(processor, "tokenizer"):
        raise UserError(f"{folder} has no processor for pictures and text: {type(processor).__name__}.")
    return VlmReader(model, processor)
