"""The writer of a sequence: position after position, what is there, when it is written, and who sees it."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from unimodal.sequence.spans import Grid, ImageSpan, Kind, TargetLayout, TextBlock

NO_LABEL = -100


@dataclass(slots=True)
class Writer:
    """Appends text and images, keeping count of positions, steps and spans.

    block  tokens that are masked together, if trained text is learned by masked prediction
    first  tokens of the next run's first block, if they are to be other than `block`
    ends   tokens that end a run of trained text; they fill up its last block
    run    trained tokens that wait to be laid out in blocks
    """

    pad: int
    block: int | None = None
    first: int | None = None
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
        if not run:
            return
        (first, self.first), size = (self.first or self.block, None), self.block
        for start, end in pairwise([0, *range(first, len(run), size), len(run)]):
            tokens = run[start:end]
            missing = size - len(tokens) if end == len(run) and run[-1] in self.ends else 0
            self._hidden_copy(tokens + run[-1:] * missing)
            if not last or end < len(run):
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

    def image(
        self, grid: Grid, image: int, kind: Kind, target: TargetLayout, before: int | None = None
    ) -> None:
        """One copy of an image; `position` does not advance until `leave_image`."""
        self.end_run()
        steps = target.steps.tolist()
        count = len(steps)
        self.images.append(ImageSpan(len(self.ids), count, grid, image, kind, before))
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
