"""Pictures of nothing in particular: gradients under flat boxes and discs of any colour.

Mixed into the training of a codec they keep it from being blind to whatever its data never shows: colours,
places and edges beyond those of a small world.
"""

import numpy as np

MOST = 6  # things on a picture


def clutter(rng: np.random.Generator, size: int) -> np.ndarray:
    """One picture, uint8 (size, size, 3), all of it drawn from `rng`."""
    down, across = np.mgrid[:size, :size] / max(1, size - 1)
    corner, below, beside = rng.uniform(0, 255, (3, 3))
    slope = rng.integers(0, 2, 2)  # half of the pictures are flat in a direction
    picture = corner + (
        slope[0] * down[..., None] * (below - corner) + slope[1] * across[..., None] * (beside - corner)
    )
    for _ in range(rng.integers(0, MOST + 1)):
        y, x = rng.uniform(0, size, 2)
        half = rng.uniform(size / 24, size / 3, 2)
        rows, columns = down * (size - 1), across * (size - 1)
        if rng.random() < 0.5:
            outside = np.hypot(rows - y, columns - x) - half[0]
        else:
            outside = np.maximum(abs(rows - y) - half[0], abs(columns - x) - half[1])
        cover = np.clip(0.5 - outside, 0, 1)[..., None]  # one pixel of soft edge
        picture = picture + cover * (rng.uniform(0, 255, 3) - picture)
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8)
