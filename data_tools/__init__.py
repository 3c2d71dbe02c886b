"""Data that programs make: the shapes world, and rows from emoji pictures.

`LIVE` maps a name to the builder of a live source, one whose rows are made when they are read.
"""

from collections.abc import Callable
from typing import Any


def _shapes(**options: Any) -> Any:
    from data_tools.shapes.live import shapes_source

    return shapes_source(**options)


LIVE: dict[str, Callable[..., Any]] = {"shapes": _shapes}
