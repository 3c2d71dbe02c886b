"""How far drawings look like what was asked for, where no oracle can say what a drawing shows.

Every drawing is compared with the true pictures of all prompts. Who draws without listening is as near to one
prompt's picture as to another's, so chance is one half, whatever the pictures are like; who blurs all into
one is not rewarded for it.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from PIL import Image

SIDE = 16  # pixels a side at which pictures are compared: a thing that sits a little elsewhere is like itself


def nearer_than_others(
    drawn: Sequence[Image.Image], true: Sequence[Image.Image], names: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
    """Of each drawing: the share of other pictures that its own is nearer than (a tie counts half), and
    whether its own is nearer than every other.

    names  what each true picture is called; those of one name are one picture
    Distances are mean squares over pictures that were made 16 pixels wide and high, in RGB.
    Raises ValueError if all are one picture.
    """
    ours, others = (np.stack([_small(picture) for picture in some]) for some in (drawn, true))
    far = ((ours[:, None] - others[None]) ** 2).mean(-1)  # (drawings, pictures)
    own = far.diagonal()[:, None]
    another = np.array([[mine != name for name in names] for mine in names])
    if not another.any(1).all():
        raise ValueError("nearer_than_others: one name; expected several, to compare drawings with")
    wins = ((own < far) + 0.5 * (own == far)) * another
    share = wins.sum(1) / another.sum(1)
    return share, share == 1


def _small(picture: Image.Image) -> np.ndarray:
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64).reshape(-1)
