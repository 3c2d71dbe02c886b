"""How many positions a document takes, told without laying it out where that is not needed.

A token over bytes holds at least one byte, so the bytes of a document bound its positions.  The bound costs
microseconds, laying out a row a thousand times that, so only rows that might not fit are laid out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from unimodal.data.document import Document, Text
from unimodal.sequence.layout import Sequence, layout
from unimodal.sequence.spans import Grid, TargetRule, grid_of
from unimodal.sequence.tokenizer import Tokenizer

# Why a model has a limit.
LIMITED = "its max_length, or the sliding window of its text weights, beyond which it would not be itself"
MARKS = 2  # special tokens of a turn, around a plain text, or around a picture


@dataclass(frozen=True, slots=True)
class Room:
    """The positions that documents take in one model; the arguments are those of `layout`.

    A plain text that is learned in masked blocks takes more or fewer with where its first block ends: here
    it takes what it takes at most.
    """

    tokenizer: Tokenizer
    target: TargetRule
    multiple: int
    block: int | None = None
    vision: Grid | None = None
    _known: dict[Grid, tuple[int, int]] = field(default_factory=dict)

    def exactly(self, document: Document) -> int:
        """Positions of the longest sequence that a document, fitted to the grid, becomes."""
        return max(map(len, self._sequences(document)))

    def reach(self, document: Document) -> int:
        """Rotary positions of the same, of which a picture takes fewer: those of its longer side."""
        return max(map(reach_of, self._sequences(document)))

    def _sequences(self, document: Document) -> Iterator[Sequence]:
        rules = {"block": self.block, "vision": self.vision}
        plain = any(turn.role is None for turn in document.turns)
        for first in range(1, self.block + 1) if self.block and plain else (None,):
            yield layout(document, self.tokenizer, self.target, self.multiple, first=first, **rules)

    def at_most(self, document: Document) -> int:
        """A number that `exactly` does not exceed."""
        most, speaker = 1, self.tokenizer.at_most("assistant\n") + self.tokenizer.at_most("\n")
        for turn in document.turns:
            said = MARKS + speaker
            for part in turn.parts:
                if isinstance(part, Text):
                    said += self.tokenizer.at_most(part.text)
                    continue
                drawn, read = self._picture(grid_of(part, self.multiple, document.id))
                most += drawn if part.trained else read
            runs = 1 + len(turn.parts)  # the last block of each may be filled up
            most += 2 * said + runs * self.block if self.block else said
        return most

    def beyond(self, document: Document, budget: int) -> int | None:
        """Positions of a document that takes more than `budget`; None if it fits."""
        if self.at_most(document) <= budget:
            return None
        length = self.exactly(document)
        return length if length > budget else None

    def farther(self, document: Document, limit: int) -> int | None:
        """Rotary positions of a document that takes more than `limit`; None if it does not."""
        if self.at_most(document) <= limit:
            return None
        reach = self.reach(document)
        return reach if reach > limit else None

    def _picture(self, grid: Grid) -> tuple[int, int]:
        """At most so many positions of a picture that is drawn, and of one that is only read."""
        if grid not in self._known:
            target, clean = self.target.target_layout(grid), grid[0] * grid[1]
            around = MARKS + self.tokenizer.at_most(target.said)
            seen = self.vision[0] * self.vision[1] if self.vision else 0
            drawn = target.copies * len(target.steps) + clean
            self._known[grid] = around + drawn, around + clean + seen
        return self._known[grid]


def reach_of(sequence: Sequence) -> int:
    """Rotary positions of a sequence."""
    return int(sequence.position.max()) + 1


def too_far(what: str, reach: int, limit: int) -> str:
    """The sentence for a document that reaches beyond the limit of a model."""
    return (
        f"{what} takes {reach} rotary positions, but this model takes {limit} at most ({LIMITED}). Use "
        "shorter documents."
    )
