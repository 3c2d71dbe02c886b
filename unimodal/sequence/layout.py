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

import numpy as np

from unimodal.data.document import Document, Text
from unimodal.sequence.spans import Grid, ImageSpan, TargetRule, TextBlock, clean_layout, grid_of
from unimodal.sequence.tokenizer import Tokenizer
from unimodal.sequence.writer import Writer


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


def layout(
    document: Document,
    tokenizer: Tokenizer,
    path: TargetRule,
    multiple: int,
    open_turn: bool = False,
    block: int | None = None,
    first: int | None = None,
    vision: Grid | None = None,
) -> Sequence:
    """Lay a document out as one sequence.

    path       decides how a drawn image is written; a read image is always one clean span
    multiple   pixels per position along a side (codec stride x patch)
    open_turn  for inference: every image is read as finished, and the sequence ends where the assistant
               is to go on (after `<|im_start|>assistant\\n`, or inside the last turn if it is the
               assistant's)
    block      tokens of a block, if trained text is learned by masked prediction; None: token by token
    first      tokens of the first block of a plain text, which is gone on with from anywhere; None: `block`
    vision     positions of a vision tower's reading, which follows that of every picture that is only read

    Raises UserError for a picture whose sides are not multiples of `multiple`.
    """
    ends = (tokenizer.image_start, tokenizer.im_end, tokenizer.endoftext)
    writer = Writer(tokenizer.pad, block=None if open_turn else block, ends=ends)
    last = None if open_turn else _last_trained(document)
    images, shown = 0, None  # pictures so far, and the grid of the last of them
    if tokenizer.bos is not None:
        writer.text([tokenizer.bos])
    for number, turn in enumerate(document.turns):
        plain = turn.role is None
        writer.first = first if plain else None
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
                writer.image(grid, images, "target", target, images - 1 if shown == grid else None)
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
            images, shown = images + 1, grid
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


def _finish(writer: Writer, document: Document) -> Sequence:
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
