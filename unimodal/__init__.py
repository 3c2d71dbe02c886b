"""One decoder transformer that reads and writes text and images.

import unimodal
model = unimodal.load("shapes-base")
model.generate("a red circle left of a blue square")[0].show()
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["UserError", "load"]

if TYPE_CHECKING:
    from unimodal.errors import UserError
    from unimodal.generation.load import load


def __getattr__(name: str):
    # Importing torch takes longer than `unimodal --help` may, so it waits until it is needed.
    if name == "load":
        from unimodal.generation.load import load

        return load
    if name == "UserError":
        from unimodal.errors import UserError

        return UserError
    raise AttributeError(f"module 'unimodal' has no attribute {name!r}")
