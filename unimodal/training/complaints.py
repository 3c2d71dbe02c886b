"""Turning pydantic's errors into sentences that name the file, the full key and the way out."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from unimodal.errors import nearest


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every pydantic model inside an annotation such as `list[Source] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a model and of the models inside it (list items are left out)."""
    for name, info in model.model_fields.items():
        yield f"{prefix}{name}"
        for inner in _models_in(info.annotation):
            yield from _paths(inner, f"{prefix}{name}.")


def _model_at(root: type[BaseModel], loc: tuple[str | int, ...]) -> type[BaseModel] | None:
    """The model that holds the key at `loc`, or None where there is none (inside a dict)."""
    model: type[BaseModel] | None = root
    for part in loc:
        if isinstance(part, int):
            continue  # an item of a list: its model was found at the list's own key
        if model is None or part not in model.model_fields:
            return None
        model = next(_models_in(model.model_fields[part].annotation), None)
    return model


def _dotted(loc: tuple[str | int, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.lstrip(".")


def _suggestion(root: type[BaseModel], loc: tuple[str | int, ...]) -> str:
    """The nearest known key: first among the siblings, then the same word in another section."""
    *parents, word = loc
    holder = _model_at(root, tuple(parents))
    siblings = {} if holder is None else {name: _dotted((*parents, name)) for name in holder.model_fields}
    elsewhere = {path.rsplit(".", 1)[-1]: path for path in _paths(root)}
    if str(word) in elsewhere:
        return f" (did you mean {elsewhere[str(word)]!r}?)"
    for names in (siblings, elsewhere):
        guess = nearest(str(word), names)
        if guess:
            name = guess.split("'")[1]
            return guess.replace(f"'{name}'", f"'{names[name]}'")
    return f"; known here: {', '.join(siblings)}" if siblings else ""


def sentences(error: ValidationError, root: type[BaseModel], where: str, overrides: list[str]) -> str:
    """One sentence a mistake, each naming the file (or the override) and the full dotted key."""
    lines = []
    for mistake in error.errors():
        loc, kind = mistake["loc"], mistake["type"]
        key = _dotted(loc)
        given = [text for text in overrides if text.split("=", 1)[0] == key]
        place = f"override {given[-1]!r}" if given else where
        if kind == "extra_forbidden":
            lines.append(f"{place}: unknown key {key!r}{_suggestion(root, loc)}.")
        elif kind == "missing":
            lines.append(f"{place}: {key!r} is missing; write it in the file or give {key}=... after it.")
        else:
            reason = mistake["msg"].removeprefix("Value error, ")
            found = "" if isinstance(mistake["input"], dict | list) else f" is {mistake['input']!r}"
            about = f"{key!r}{found}: " if key else ""  # a rule between sections has no key
            lines.append(f"{place}: {about}{reason[0].lower()}{reason[1:]}.")
    return "\n".join(lines)
