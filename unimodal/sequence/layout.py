"""Layout: a document becomes one sequence of positions.

The single place where a document is turned into token ids, labels, marks and RoPE positions.  Training,
generation, chat and evaluation all call `layout`; the only difference at inference is `open_turn`, which
ends the sequence where the assistant is to begin.

    <|im_start|>user\\n a red circle <|im_end|>\\n
    <|im_start|>assistant\\n <|image_start|> [noised] [clean] <|image_end|> <|im_end|>\\n

Text that is learned by masked prediction is laid out as pictures are: in blocks, each as a hidden copy whose
tokens are to be masked, then as itself.
A pretrained tokenizer that begins every sequence with a token of its own (Llama 3, Mistral) does so here too.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from unimodal.data.document import Document, Image, Text
from unimodal.errors import UserError
from unimodal.sequence.tokenizer import Tokenizer

NO_LABEL = -100
Grid = tuple[int, int]
Kind = Literal["clean", "target", "vision"]


@dataclass(frozen=True, slots=True)
class TargetLayout:
    """How a path lays out an image that is to be drawn, on P positions.

    steps   (P,) when each position is written, counted from 0
    hidden  whether only the image itself may look at these positions
    clean   whether a clean copy must follow, for what comes later to look at
    places  (P, 2) row and column inside the picture; None: one position a cell, row by row
    copies  how many times training draws it, side by side, none seeing another (if hidden)
    said    text that stands before every picture of this size, drawn or read; nobody is trained to say it
    """

    steps: np.ndarray
    hidden: bool
    clean: bool = True
    places: np.ndarray | None = None
    copies: int = 1
    said: str = ""

    def offsets(self, grid: Grid) -> np.ndarray:
        """(P, 3) what is added to the RoPE position at which the image stands."""
        places = raster(grid) if self.places is None else self.places
        return np.pad(places, ((0, 0), (1, 0)))


def raster(grid: Grid) -> np.ndarray:
    """(rows * columns, 2) row and column of every cell, row by row."""
    return np.stack(np.indices(grid), axis=-1).reshape(-1, 2)


class TargetRule(Protocol):
    """The layout question a path answers (see `unimodal.paths`)."""

    def target_layout(self, grid: Grid) -> TargetLayout:
        """Lay out a target image of `grid` = (rows, columns) positions."""
        ...


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """Where a copy of an image stands in a sequence.

    start   first position
    length  number of positions: rows * columns of a clean copy, what the path says of a target
    grid    (rows, columns) of the clean copy
    image   index into the sequence's `pixels`
    kind    `clean`: the finished image is read; `target`: the path draws it; `vision`: a tower's features
    """

    start: int
    length: int
    grid: Grid
    image: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Where the hidden copy of a block of text stands in a sequence: its first position, and how many."""

    start: int
    length: int


@dataclass(slots=True)
class Sequence:
    """One document laid out on T positions (numpy; `pack` makes tensors of it).

    ids, labels, step, span  (T,) integers; labels[i] is what position i must predict, or NO_LABEL: the next
                             token, or in a hidden copy of text its own
    hidden                   (T,) bool
    position                 (T, 3) order, row, column
    images, pixels           image spans, and the uint8 (H, W, 3) pictures they index
    blocks                   hidden copies of text that is learned by masked prediction
    """

    ids: np.ndarray
    labels: np.ndarray
    step: np.ndarray
    span: np.ndarray
    hidden: np.ndarray
    position: np.ndarray
    images: list[ImageSpan]
    pixels: list[np.ndarray]
    blocks: list[TextBlock] = field(default_factory=list)
    id: str = ""
    next_position: int = 0
    next_step: int = 0

    def __len__(self) -> int:
        """Number of positions."""
        return len(self.ids)


@dataclass(slots=True)
class _Writer:
    """Appends text and images, keeping count of positions, steps and spans.

    block  tokens that are masked together, if trained text is learned by masked prediction
    ends   tokens that end a run of trained text; they fill up its last block
    run    trained tokens that wait to be laid out in blocks
    """

    pad: int
    block: int | None = None
    ends: tuple[int, ...] = ()
    run: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)
    own: list[int] = field(default_factory=list)  # the label of a position that says its own token
    step: list[int] = field(default_factory=list)
    span: list[int] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)
    position: list[tuple[int, int, int]] = field(default_factory=list)
    images: list[ImageSpan] = field(default_factory=list)
    blocks: list[TextBlock] = field(default_factory=list)
    next_position: int = 0
    next_step: int = 0
    next_span: int = 0

    def text(self, ids: list[int], trained: bool = False) -> None:
        """Tokens, which are learned if `trained`."""
        if trained and self.block:
            self.run += ids
            return
        self.end_run()
        self._tokens(ids, trained)

    def _tokens(self, ids: list[int], trained: bool) -> None:
        """Each token is a step of its own; `trained` ones are predicted by the position before them."""
        count = len(ids)
        self.ids += ids
        self.trained += [trained] * count
        self.own += [NO_LABEL] * count
        self.step += range(self.next_step, self.next_step + count)
        self.span += [self.next_span] * count
        self.hidden += [False] * count
        self.position += [(p, p, p) for p in range(self.next_position, self.next_position + count)]
        self.next_step += count
        self.next_position += count

    def end_run(self, last: bool = False) -> None:
        """Lay out the waiting tokens block by block: a hidden copy, then the tokens as they are read.

        A run that ends in a mark fills its last block with it, so that a model which fills in whole blocks
        learns where to stop.
        last  nothing that follows is trained, so nothing has to read the last block
        """
        run, self.run = self.run, []
        for start in range(0, len(run), self.block or 1):
            tokens = run[start : start + self.block]
            missing = self.block - len(tokens) if run[-1] in self.ends else 0
            self._hidden_copy(tokens + run[-1:] * missing)
            if not last or start + self.block < len(run):
                self._tokens(tokens, trained=False)

    def _hidden_copy(self, ids: list[int]) -> None:
        """Tokens of one step that only they themselves see; neither positions nor what follows know of it."""
        count = len(ids)
        self.blocks.append(TextBlock(len(self.ids), count))
        self.next_span += 1
        self.ids += ids
        self.trained += [False] * count
        self.own += ids
        self.step += [self.next_step] * count
        self.span += [self.next_span] * count
        self.hidden += [True] * count
        self.position += [(p, p, p) for p in range(self.next_position, self.next_position + count)]
        self.next_step += 1
        self.next_span += 1

    def image(self, grid: Grid, image: int, kind: Kind, target: TargetLayout) -> None:
        """One copy of an image; `position` does not advance until `leave_image`."""
        self.end_run()
        steps = target.steps.tolist()
        count = len(steps)
        self.images.append(ImageSpan(len(self.ids), count, grid, image, kind))
        self.next_span += 1
        self.ids += [self.pad] * count
        self.trained += [False] * count
        self.own += [NO_LABEL] * count
        self.step += [self.next_step + step for step in steps]
        self.span += [self.next_span] * count
        self.hidden += [target.hidden] * count
        self.position += map(tuple, (self.next_position + target.offsets(grid)).tolist())
        self.next_step += max(steps) + 1
        self.next_span += 1

    def leave_image(self, grid: Grid) -> None:
        """Text goes on after the larger side, so no position is used twice along any axis."""
        self.next_position += max(grid)

    def labels(self) -> np.ndarray:
        """A trained token is the label of the position before it, or of its own in a hidden copy."""
        ids, trained = np.array(self.ids), np.array(self.trained, dtype=bool)
        labels = np.array(self.own, dtype=np.int64)
        labels[:-1][trained[1:]] = ids[1:][trained[1:]]
        return labels


def clean_layout(grid: Grid) -> TargetLayout:
    """A finished image: all positions at once, visible to everything after it."""
    return TargetLayout(np.zeros(grid[0] * grid[1], dtype=np.int64), hidden=False)


def grid_of(image: Image, multiple: int, where: str) -> Grid:
    """Rows and columns of positions for a picture whose sides are multiples of `multiple` pixels."""
    height, width = image.pixels.shape[:2]
    if height % multiple or width % multiple or not height or not width:
        raise UserError(
            f"{where}: a picture of {width}x{height} pixels cannot be laid out: both sides must be "
            f"multiples of {multiple}. Resize it first (unimodal.data.pictures.fit does)."
        )
    return height // multiple, width // multiple


def layout(
    document: Document,
    tokenizer: Tokenizer,
    path: TargetRule,
    multiple: int,
    open_turn: bool = False,
    block: int | None = None,
    vision: Grid | None = None,
) -> Sequence:
    """Lay a document out as one sequence.

    path       decides how a drawn image is written; a read image is always one clean span
    multiple   pixels per position along a side (codec stride x patch)
    open_turn  for inference: every image is read as finished, and the sequence ends where the assistant
               is to go on (after `<|im_start|>assistant\\n`, or inside the last turn if it is the
               assistant's)
    block      tokens of a block, if trained text is learned by masked prediction; None: token by token
    vision     positions of a vision tower's reading, which follows that of every picture that is only read

    Raises UserError for a picture whose sides are not multiples of `multiple`.
    """
    ends = (tokenizer.image_start, tokenizer.im_end, tokenizer.endoftext)
    writer = _Writer(tokenizer.pad, None if open_turn else block, ends)
    last = None if open_turn else _last_trained(document)
    images = 0
    if tokenizer.bos is not None:
        writer.text([tokenizer.bos])
    for number, turn in enumerate(document.turns):
        plain = turn.role is None
        if not plain:
            writer.text([tokenizer.im_start, *tokenizer.encode(f"{turn.role}\n")])
        elif tokenizer.bos is None:
            writer.text([tokenizer.endoftext])
        for index, part in enumerate(turn.parts):
            if isinstance(part, Text):
                writer.text(tokenizer.encode(part.text), part.trained)
                continue
            grid = grid_of(part, multiple, document.id)
            drawn = part.trained and not open_turn
            target = path.target_layout(grid)
            writer.text([tokenizer.image_start], trained=drawn)
            if target.said:
                writer.text(tokenizer.encode(target.said))
            for _ in range(target.copies if drawn else 0):
                writer.image(grid, images, "target", target)
            if drawn and last == (number, index):
                # Nothing that follows is trained, so nothing needs the clean copy or the end marks.
                return _finish(writer, document)
            if not drawn or target.clean:
                writer.image(grid, images, "clean", clean_layout(grid))
            writer.leave_image(grid)
            if vision and not part.trained:
                writer.image(vision, images, "vision", clean_layout(vision))
                writer.leave_image(vision)
            writer.text([tokenizer.image_end])
            images += 1
        if open_turn and number == len(document.turns) - 1 and turn.role in (None, "assistant"):
            return _finish(writer, document)
        trained = any(p.trained for p in turn.parts)
        if plain:
            writer.text([tokenizer.endoftext], trained)
        else:
            writer.text([tokenizer.im_end], trained and turn.role == "assistant")
        if writer.run and last is not None and last[0] == number:
            writer.end_run(last=True)
            return _finish(writer, document)
        if not plain:
            writer.text(tokenizer.encode("\n"))
    if open_turn:
        writer.text([tokenizer.im_start, *tokenizer.encode("assistant\n")])
    return _finish(writer, document)


def _last_trained(document: Document) -> tuple[int, int] | None:
    """Turn and part number of the last trained part of the document."""
    marks = [(n, i) for n, turn in enumerate(document.turns) for i, p in enumerate(turn.parts) if p.trained]
    return marks[-1] if marks else None


def _finish(writer: _Writer, document: Document) -> Sequence:
    writer.end_run()
    seen = 1 + max((span.image for span in writer.images), default=-1)
    return Sequence(
        ids=np.array(writer.ids, dtype=np.int64),
        labels=writer.labels(),
        step=np.array(writer.step, dtype=np.int64),
        span=np.array(writer.span, dtype=np.int64),
        hidden=np.array(writer.hidden, dtype=bool),
        position=np.array(writer.position, dtype=np.int64).reshape(-1, 3),
        images=writer.images,
        pixels=[image.pixels for image in document.images][:seen],
        blocks=writer.blocks,
        id=document.id,
        next_position=writer.next_position,
        next_step=writer.next_step,
    )
