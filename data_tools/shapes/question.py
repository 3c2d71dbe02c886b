"""A question as a value."""

from dataclasses import dataclass

from data_tools.shapes.language import IT, Group


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a kind about a group, or two; `word` is the relation or what is compared."""

    kind: str
    a: Group = IT
    b: Group = IT
    word: str = ""
