"""A loaded model and what it can be asked: generate, edit, answer, complete, chat.

    model = unimodal.load("shapes-base")
    model.generate("a red circle left of a blue square", seed=1)[0].save("picture.png")

Every verb builds a row as training knows it and lets `converse` go on from there; lists are answered as
one ragged batch, each element as if it had been asked alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image as PILImage

from unimodal.adapters.shelf import Shelf, named
from unimodal.data.document import Document
from unimodal.diffusion.guidance import Guidance
from unimodal.diffusion.solvers import OnStep
from unimodal.generation.converse import Converser, Piece
from unimodal.generation.draw import grid_for
from unimodal.generation.replies import Drawing, Event, Picture, Reply, collected, streamed
from unimodal.generation.rows import open_document, paired, user_row
from unimodal.generation.settings import Settings, drawing, guidance_of, seeds_of, talking, telling
from unimodal.model.config import ModelConfig, Writing
from unimodal.model.unified import UnifiedModel
from unimodal.sequence.tokenizer import Tokenizer

__all__ = ["Drawing", "Event", "Picture", "Piece", "Reply", "Unimodal"]

BATCH = 32  # conversations that go on together


class Unimodal:
    """A model, its tokenizer, and its verbs; `folder` is what it was loaded from, if anything."""

    def __init__(
        self,
        model: UnifiedModel,
        tokenizer: Tokenizer | None,
        name: str = "model",
        folder: Path | None = None,
    ):
        self.model, self.tokenizer, self.base = model.eval(), tokenizer, name
        self._shelf = Shelf(model, folder)

    @property
    def name(self) -> str:
        """What the model was loaded as, and the adapter in use."""
        return f"{self.base} + {self.adapter}" if self.adapter else self.base

    @property
    def writes(self) -> bool:
        """Whether it answers in words; a denoiser with its own text encoder only draws."""
        return True

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters at hand."""
        return self._shelf.names

    @property
    def adapter(self) -> str | None:
        """The adapter in use."""
        return self._shelf.active

    def add_adapter(self, folder: str | Path | Mapping[str, str | Path]) -> str:
        """Take an adapter to hand, without using it yet, and give its name.

        folder  FOLDER, NAME=FOLDER, or {name: folder}
        Raises UserError if it is no adapter of this model's weights.
        """
        ((name, path),) = named(folder).items()
        self._shelf.add(name, path)
        return name

    def set_adapter(self, name: str | None) -> None:
        """Use this adapter and no other; None is the model as it is."""
        self._shelf.use(name)

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.model.config

    @property
    def writing(self) -> Writing:
        """How its replies are written."""
        return self.config.writing

    @property
    def size(self) -> int:
        """Number of parameters, codec included."""
        return sum(p.numel() for p in self.model.parameters())

    def generate(
        self,
        prompt: str | Sequence[str],
        n: int = 1,
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | tuple[int, int] | None = None,
    ) -> list[PILImage.Image]:
        """Draw `n` pictures of every prompt (prompt-major); picture i of a prompt uses seed + i.

        seed      one for all prompts, or one for each
        guidance  how strongly to follow the prompt; 1 is not at all stronger than it was learned
        size      side or (height, width) in pixels, rounded to the model's grid; None: the model's own
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        documents = [self._document(user_row(text)) for text in prompts for _ in range(n)]
        seeds = seeds_of(seed, len(prompts), n)
        side = self.config.image_size if size is None else size
        grid = grid_for(self.model, *((side, side) if isinstance(side, int) else side))
        settings = drawing(self.writing, self._guidance(guidance), steps, grid)
        return [reply.images[0] for reply in self._replies(documents, seeds, settings)]

    def edit(
        self,
        image: Any,
        instruction: str | Sequence[str],
        n: int = 1,
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance: float | None = None,
        image_guidance: float | None = None,
        size: int | None = None,
    ) -> list[PILImage.Image]:
        """Draw each image anew as its instruction says; `n` and `seed` as in `generate`.

        size  pixels of the longer side, to which the image is scaled first and in which it is drawn; None:
              the model's own, as in training
        """
        pairs = paired(image, instruction, "instruction")
        rows = [user_row(text, picture) for picture, text in pairs for _ in range(n)]
        documents = [self._document(row, size) for row in rows]
        seeds = seeds_of(seed, len(pairs), n)
        settings = drawing(self.writing, self._guidance(guidance, image_guidance), steps)
        return [reply.images[0] for reply in self._replies(documents, seeds, settings)]

    def answer(
        self,
        image: Any,
        question: str | Sequence[str],
        max_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> str | list[str]:
        """Answer each question about its image, in words."""
        pairs = paired(image, question, "question")
        documents = [self._document(user_row(text, picture)) for picture, text in pairs]
        return self._texts(documents, isinstance(question, str), max_tokens, temperature, seed)

    def complete(
        self, text: str | Sequence[str], max_tokens: int = 128, temperature: float = 0.0, seed: int = 0
    ) -> str | list[str]:
        """Go on with each plain text."""
        texts = [text] if isinstance(text, str) else list(text)
        documents = [self._document({"text": t}) for t in texts]
        return self._texts(documents, isinstance(text, str), max_tokens, temperature, seed)

    def chat(self, messages: list[dict], images: Sequence[Any] = (), **settings: Any) -> Reply:
        """Reply to a conversation; the model itself decides to write or draw.

        messages, images  exactly as in a row of training data, the last message being the user's
        settings          max_tokens, temperature, seed, steps, guidance, image_guidance; a temperature of
                          None is the model's own
        """
        return self.chat_batch([{"messages": messages, "images": list(images)}], **settings)[0]

    def chat_batch(
        self,
        rows: Sequence[dict],
        max_tokens: int = 256,
        temperature: float | None = None,
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance: float | None = None,
        image_guidance: float | None = None,
    ) -> list[Reply]:
        """Reply to many conversations at once, each as if alone with `seed`, or with its own of several."""
        guided = self._guidance(guidance, image_guidance)
        settings = talking(self.writing, guided, steps, max_tokens, temperature)
        documents = [self._document(row) for row in rows]
        return self._replies(documents, seeds_of(seed, len(documents)), settings)

    def stream(
        self,
        messages: list[dict],
        images: Sequence[Any] = (),
        max_tokens: int = 256,
        temperature: float | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        image_guidance: float | None = None,
    ) -> Iterator[Event]:
        """As `chat`, event by event while it happens; closing the iterator stops the model."""
        guided = self._guidance(guidance, image_guidance)
        settings = talking(self.writing, guided, steps, max_tokens, temperature)
        document = self._document({"messages": messages, "images": list(images)})
        yield from streamed(partial(self._converser, [document], settings), seed)

    def _converser(
        self, documents: list[Document], settings: Settings, on_step: OnStep | None = None
    ) -> Converser:
        """What answers a batch of documents."""
        return Converser(self.model, self.tokenizer, documents, settings, on_step)

    def _guidance(self, text: float | None, image: float | None = None) -> Guidance:
        return guidance_of(self.config.sampling, text, image)

    def _document(self, row: dict, size: int | None = None) -> Document:
        return open_document(row, self.model.multiple, self.config.image_size if size is None else size)

    def _texts(
        self, documents: list[Document], single: bool, max_tokens: int, temperature: float, seed: int
    ) -> str | list[str]:
        settings = telling(self.writing, max_tokens, temperature)
        texts = [r.text for r in self._replies(documents, [seed] * len(documents), settings)]
        return texts[0] if single else texts

    def _replies(self, documents: list[Document], seeds: list[int], settings: Settings) -> list[Reply]:
        replies: list[Reply] = []
        for start in range(0, len(documents), BATCH):
            some, their_seeds = documents[start : start + BATCH], seeds[start : start + BATCH]
            replies += collected(self._converser(some, settings).run(their_seeds), len(some))
        return replies
