"""What a checkpoint says of turns and ends: read before its tokenizer is extended, and put back on export."""

import json
from pathlib import Path
from typing import Any

from unimodal.errors import UserError
from unimodal.pretrained.checkpoint import read_json
from unimodal.sequence.origin import FILE, Origin
from unimodal.sequence.tokenizer import Tokenizer

TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def read_origin(folder: Path, settings: dict[str, Any], added: list[str]) -> Origin:
    """Of a checkpoint, whose tokenizer_config.json says `settings`.

    Raises UserError for a chat template, or an id, that is none.
    """
    said = read_json(folder / "special_tokens_map.json") | settings
    config, generation = (read_json(folder / name) for name in ("config.json", "generation_config.json"))
    named = {key: content(said.get(key)) for key in TOKENS}
    ids = {key: config[key] for key in IDS if config.get(key) is not None}
    for key, value in ids.items():
        if not all(isinstance(number, int) for number in (value if isinstance(value, list) else [value])):
            raise UserError(f"{folder / 'config.json'}: {key} is {value!r}; expected a token's number.")
    return Origin(
        added=added,
        tokens={key: token for key, token in named.items() if isinstance(token, str)},
        chat_template=_template(folder, settings),
        ids=ids,
        generation=generation,
    )


def content(token: Any) -> Any:
    """A special token's text: settings hold it as it is, or in an object."""
    return token.get("content") if isinstance(token, dict) else token


def _template(folder: Path, settings: dict[str, Any]) -> str | list[dict[str, Any]] | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            found = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{file} is not UTF-8 text ({error}). Save it as UTF-8, or leave it out."
            ) from error
        return _compiled(found, file)
    found = settings.get("chat_template") or read_json(folder / "chat_template.json").get("chat_template")
    several = isinstance(found, list) and all(isinstance(one, dict) for one in found)
    if not (found is None or isinstance(found, str) or several):
        kind = type(found).__name__
        raise UserError(f"{folder}: chat_template is a {kind}; expected Jinja text, or a list of named ones.")
    for one in found if several else [found]:
        _compiled(one.get("template", "") if several else one or "", folder)
    return found or None


def _compiled(template: Any, where: Path) -> Any:
    """The template, if Jinja can read it: an exported checkpoint with another fails at its first turn."""
    from jinja2 import Environment, TemplateSyntaxError

    try:
        Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except (TemplateSyntaxError, TypeError) as error:
        # `generation` is a tag that transformers adds; a template with it is taken as it is.
        if "generation" not in str(error):
            raise UserError(
                f"{where}: the chat template is no Jinja ({error}). Mend it, or leave it out."
            ) from error
    return template


def template_text(origin: Origin) -> str:
    """All of a checkpoint's chat templates in one text; empty if it has none."""
    found = origin.chat_template or ""
    return found if isinstance(found, str) else "\n".join(str(one.get("template", "")) for one in found)


def exported_ids(tokenizer: Tokenizer) -> dict[str, int | list[int]]:
    """How texts begin and end and rows are filled, for other programs.

    The ends are the checkpoint's own where its template is: who writes turns by it ends them by it.
    """
    ours = {
        "bos_token_id": tokenizer.endoftext if tokenizer.bos is None else tokenizer.bos,
        "eos_token_id": [tokenizer.im_end, tokenizer.endoftext],
        "pad_token_id": tokenizer.pad,
    }
    origin = tokenizer.origin
    if origin is None or origin.chat_template is None:
        return ours
    named = {f"{key}_id": tokenizer.backend.token_to_id(token) for key, token in origin.tokens.items()}
    named = {key: number for key, number in named.items() if key in IDS and number is not None}
    return ours | named | origin.ids


def restore(folder: Path, tokenizer: Tokenizer, ids: dict[str, int | list[int]]) -> None:
    """Write the tokenizer and generation_config.json with the checkpoint's own template and settings.

    ids  what `exported_ids` gave
    A checkpoint without a template, and a model that was made of none, has turns in ChatML.  One with another
    learned here to end them by `<|im_end|>`, at which generation stops as well as at its own ends.
    """
    tokenizer.save(folder)
    origin, generation = tokenizer.origin, dict(ids)
    if origin is not None:
        (folder / FILE).unlink()
        if origin.chat_template is not None:
            file = folder / "tokenizer_config.json"
            settings = read_json(file) | origin.tokens | {"chat_template": origin.chat_template}
            file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
            generation |= origin.generation
            generation["eos_token_id"] = _ends(generation["eos_token_id"], tokenizer.im_end)
        else:
            generation = origin.generation | generation
    text = json.dumps(generation, indent=2) + "\n"
    (folder / "generation_config.json").write_text(text, encoding="utf-8")


def _ends(own: int | list[int] | None, ours: int) -> int | list[int]:
    """What a checkpoint's texts end by, and `ours`."""
    known = own if isinstance(own, list) else [] if own is None else [own]
    return own if ours in known else [*known, ours]
