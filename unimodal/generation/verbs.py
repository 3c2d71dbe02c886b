"""A loaded model and what it can be asked: generate, edit, answer, complete, chat.

    model = unimodal.load("shapes-base")
    model.generate("a red circle left of a blue square", seed=1)[0].save("picture.png")

Every verb builds a row as training knows it and lets `converse` go on from there; lists are answered as
one ragged batch, each element as if it had been asked alone.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image as PILImage

from unimodal.adapters.base import find_base, is_adapter, read_note
from unimodal.adapters.shelf import Adapters, Shelf, named
from unimodal.data.document import Document
from unimodal.data.pictures import MAX_PIXELS, fit, open_picture
from unimodal.data.rows import parse_row
from unimodal.diffusion.guidance import Guidance
from unimodal.diffusion.solvers import OnStep
from unimodal.errors import UserError
from unimodal.generation.converse import Converser, Piece, Settings
from unimodal.generation.draw import grid_for
from unimodal.model.config import ModelConfig, Writing
from unimodal.model.folder import find_model, load_model, model_type
from unimodal.model.unified import UnifiedModel
from unimodal.sequence.layout import Grid
from unimodal.sequence.tokenizer import Tokenizer

BATCH = 32  # conversations that go on together
# model_type of config.json -> what opens such a folder, given its name and a device; imported when needed.
OTHERS = {"external": "unimodal.external.verbs:open_external"}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture is being drawn: `step` of `steps` solver steps are done."""

    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished picture."""

    image: PILImage.Image


Event = Piece | Drawing | Picture


@dataclass(frozen=True, slots=True)
class Reply:
    """What the assistant said: texts and pictures in order."""

    parts: tuple[str | PILImage.Image, ...]

    @property
    def text(self) -> str:
        """All text, joined."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> list[PILImage.Image]:
        """All pictures."""
        return [part for part in self.parts if not isinstance(part, str)]


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
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters at hand."""
        return self._shelf.names

    @property
    def adapter(self) -> str | None:
        """The adapter in use."""
        return self._shelf.active

    def add_adapter(self, folder: str | Path) -> str:
        """Take an adapter to hand (FOLDER, or NAME=FOLDER) and give its name; `set_adapter` uses it.

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
        documents = [self._document(_user(text)) for text in prompts for _ in range(n)]
        seeds = _seeds(seed, len(prompts), n)
        side = size or self.config.image_size
        grid = grid_for(self.model, *((side, side) if isinstance(side, int) else side))
        settings = self._drawing(steps, self._guidance(guidance, None), grid)
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
    ) -> list[PILImage.Image]:
        """Draw each image anew as its instruction says; `n` and `seed` as in `generate`."""
        pairs = _pairs(image, instruction, "instruction")
        documents = [self._document(_user(text, picture)) for picture, text in pairs for _ in range(n)]
        seeds = _seeds(seed, len(pairs), n)
        settings = self._drawing(steps, self._guidance(guidance, image_guidance))
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
        documents = [self._document(_user(t, picture)) for picture, t in _pairs(image, question, "question")]
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
        settings = self._talking(max_tokens, temperature, steps, guided)
        documents = [self._document(row) for row in rows]
        return self._replies(documents, _seeds(seed, len(documents)), settings)

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
        settings = self._talking(max_tokens, temperature, steps, guided)
        document = self._document({"messages": messages, "images": list(images)})
        yield from _stream(partial(self._converser, [document], settings), seed)

    def _converser(
        self, documents: list[Document], settings: Settings, on_step: OnStep | None = None
    ) -> Converser:
        """What answers a batch of documents."""
        return Converser(self.model, self.tokenizer, documents, settings, on_step)

    def _drawing(self, steps: int | None, guidance: Guidance, grid: Grid | None = None) -> Settings:
        """Replies that draw, after a plan if the model was trained to make one."""
        own = self.writing
        return Settings(
            writes=False,
            plan=own.plan,
            temperature=own.temperature,
            top_p=own.top_p,
            steps=steps,
            guidance=guidance,
            grid=grid,
        )

    def _talking(
        self, max_tokens: int, temperature: float | None, steps: int | None, guidance: Guidance
    ) -> Settings:
        """Replies in which the model decides what to do."""
        own = self.writing
        return Settings(
            max_tokens=max_tokens,
            temperature=own.temperature if temperature is None else temperature,
            top_p=own.top_p,
            steps=steps,
            guidance=guidance,
        )

    def _guidance(self, text: float | None, image: float | None) -> Guidance:
        sampling = self.config.sampling
        return Guidance(
            sampling.guidance if text is None else text,
            sampling.image_guidance if image is None else image,
        )

    def _document(self, row: dict) -> Document:
        pictures = [_opened(image) for image in row.get("images") or ()]
        row = {**row, "images": pictures} if pictures else row
        document = parse_row(row, "the conversation", max_pixels=MAX_PIXELS, open_turn=True)
        return fit(document, self.model.multiple, MAX_PIXELS)

    def _texts(
        self, documents: list[Document], single: bool, max_tokens: int, temperature: float, seed: int
    ) -> str | list[str]:
        top_p = self.writing.top_p
        settings = Settings(max_tokens=max_tokens, temperature=temperature, top_p=top_p, draws=False)
        texts = [r.text for r in self._replies(documents, [seed] * len(documents), settings)]
        return texts[0] if single else texts

    def _replies(self, documents: list[Document], seeds: list[int], settings: Settings) -> list[Reply]:
        replies: list[Reply] = []
        for start in range(0, len(documents), BATCH):
            some, their_seeds = documents[start : start + BATCH], seeds[start : start + BATCH]
            parts: list[list[str | PILImage.Image]] = [[] for _ in some]
            for row, event in self._converser(some, settings).run(their_seeds):
                if not isinstance(event, Piece):
                    parts[row].append(PILImage.fromarray(event.pixels))
                elif parts[row] and isinstance(parts[row][-1], str):
                    parts[row][-1] += event.text
                else:
                    parts[row].append(event.text)
            replies += [Reply(tuple(said)) for said in parts]
        return replies


def load(name: str | Path | None = None, device: str | None = None, adapter: Adapters = None) -> Unimodal:
    """Load a model: a shipped name, a folder that `unimodal train` wrote, or a hub id.

    name     None takes the model that the adapter belongs to; an adapter's folder means both
    device   None takes CUDA where there is one, else the CPU
    adapter  one or more adapter folders, each FOLDER or NAME=FOLDER, or folders by name; the first is used
    Raises UserError if there is no such model, its files are damaged, or an adapter is of another model.
    """
    import torch

    adapters = named(adapter)
    if name is not None and is_adapter(name):
        adapters, name = named(name) | adapters, None
    if name is not None:
        folder = find_model(str(name))
    elif adapters:
        first = next(iter(adapters.values()))
        note = read_note(first)
        folder, name = find_base(note, first), note.base
    else:
        raise UserError("name a model to load, or an adapter, which knows its model")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if (kind := model_type(folder)) in OTHERS:
        if adapters:
            raise UserError(f"{folder} is an {kind} model, which takes no adapters; load it without.")
        module, function = OTHERS[kind].split(":")
        return getattr(import_module(module), function)(folder, str(name), device)
    model, tokenizer = load_model(folder)
    loaded = Unimodal(model.to(device), tokenizer, str(name), folder)
    for called, path in adapters.items():
        loaded._shelf.add(called, path)
    loaded.set_adapter(next(iter(adapters), None))
    return loaded


def _opened(image: Any) -> Any:
    """Pictures given by path may lie anywhere: here a person names them, not a row of a data set."""
    return open_picture(Path(image), str(image)) if isinstance(image, str | Path) else image


def _user(text: str, image: Any = None) -> dict:
    """A row with one question of the user's; the image, if any, stands before the text."""
    parts = [{"type": "text", "text": text}]
    if image is None:
        return {"messages": [{"role": "user", "content": parts}]}
    return {"messages": [{"role": "user", "content": [{"type": "image"}, *parts]}], "images": [image]}


def _pairs(image: Any, text: str | Sequence[str], what: str) -> list[tuple[Any, str]]:
    texts = [text] if isinstance(text, str) else list(text)
    pictures = list(image) if isinstance(image, list | tuple) else [image] * len(texts)
    if len(pictures) != len(texts):
        raise UserError(f"{len(pictures)} images but {len(texts)} {what}s; give one {what} for each image")
    return list(zip(pictures, texts))


def _seeds(seed: int | Sequence[int], asked: int, n: int = 1) -> list[int]:
    """Seeds of `n` pictures for each of what was asked."""
    first = [seed] * asked if isinstance(seed, int) else list(seed)
    if len(first) != asked:
        raise UserError(f"{asked} prompts but {len(first)} seeds; give one seed, or one for each")
    return [own + i for own in first for i in range(n)]


def _stream(converser: Callable[[OnStep], Converser], seed: int) -> Iterator[Event]:
    """Run the conversation in a thread, so that solver steps arrive while a picture is being drawn."""
    events: queue.Queue[Event | BaseException | None] = queue.Queue()
    stopped = threading.Event()

    class Stopped(Exception):
        """The reader went away."""

    def on_step(step: int, steps: int) -> None:
        if stopped.is_set():
            raise Stopped
        events.put(Drawing(step, steps))

    def work() -> None:
        try:
            for _, event in converser(on_step).run([seed]):
                if stopped.is_set():
                    return
                events.put(event if isinstance(event, Piece) else Picture(PILImage.fromarray(event.pixels)))
            events.put(None)
        except Stopped:
            return
        except BaseException as error:  # handed to the reader, who raises it
            events.put(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        while (event := events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event
    finally:
        stopped.set()
        worker.join()
