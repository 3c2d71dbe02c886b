"""Row number to Sequence: fitted to the grid, conditions dropped, laid out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unimodal.data.document import Document, drop
from unimodal.data.mixture import Mixture
from unimodal.data.pictures import MAX_PIXELS, fit
from unimodal.errors import UserError
from unimodal.model.config import DropTable
from unimodal.sequence.layout import Sequence, layout
from unimodal.sequence.room import Room, reach_of, too_far
from unimodal.sequence.spans import Grid, TargetRule
from unimodal.sequence.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Row number to Sequence, as a pure function: what the background process needs, and no weights."""

    mixture: Mixture
    tokenizer: Tokenizer
    target: TargetRule
    multiple: int
    image_size: int
    table: DropTable
    seed: int
    block: int | None = None  # of masked text
    vision: Grid | None = None
    limit: int | None = None  # rotary positions that a document may take

    def document(self, number: int) -> Document:
        """Row `number`, fitted to the grid."""
        return fit(self.mixture.document(number), self.multiple, MAX_PIXELS, self.image_size)

    def __call__(self, number: int) -> Sequence:
        """Lay out row `number`, after dropping conditions at the rates of the table.

        Raises UserError for one that is too long for the model.
        """
        document = self.document(number)
        if any(image.trained for image in document.images):
            document = self._drop(document, number)
        rules = {"block": self.block, "first": self._first(number), "vision": self.vision}
        laid_out = layout(document, self.tokenizer, self.target, self.multiple, **rules)
        if self.limit is not None and (reach := reach_of(laid_out)) > self.limit:
            raise UserError(too_far(f"{document.id}: the row", reach, self.limit))
        return laid_out

    def room(self) -> Callable[[Document, int], int | None]:
        """A function of a row that was parsed without decoding its pictures, and a budget.

        It gives the positions that the row takes if they are more than the budget, None if it fits.  What
        a row loses by the table makes it shorter, and does not count.
        """
        room = self._room()
        return lambda document, budget: room.beyond(self._unseen(document), budget)

    def farther(self) -> Callable[[Document, int], int | None]:
        """The same of rotary positions, and how many of them a document may take."""
        room = self._room()
        return lambda document, limit: room.farther(self._unseen(document), limit)

    def _room(self) -> Room:
        return Room(self.tokenizer, self.target, self.multiple, self.block, self.vision)

    def _unseen(self, document: Document) -> Document:
        return fit(document, self.multiple, MAX_PIXELS, self.image_size, decoded=False)

    def _first(self, number: int) -> int | None:
        """Tokens of a plain text's first masked block: any number, since it may be gone on with anywhere."""
        if self.block is None:
            return None
        own = np.random.Philox(key=[self.seed, number], counter=1)  # apart from what drops conditions
        return 1 + int(np.random.Generator(own).integers(self.block))

    def _drop(self, document: Document, number: int) -> Document:
        return dropped(document, self.table, self.seed, number)


def dropped(document: Document, table: DropTable, seed: int, number: int) -> Document:
    """Row `number` with a condition taken out, or none, at the rates of the table."""
    chance = np.random.Generator(np.random.Philox(key=[seed, number])).random()
    for kind in ("text", "image", "both"):
        chance -= getattr(table, kind)
        if chance < 0:
            return drop(document, kind)
    return document
