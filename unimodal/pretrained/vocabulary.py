"""A language model's tokenizer, extended by what marks turns and images.

Turns are ChatML: `<|im_start|>user\\n ... <|im_end|>\\n`.  A checkpoint that has these tokens (Qwen, SmolLM)
keeps them, and with them what it knows of turns; another (Llama 3, Mistral) gets them as new tokens.  Its own
end of text begins and ends plain texts.  `<|image_start|>`, `<|image_end|>` and `<|pad|>` are new for all.
Where it is the tokenizer's habit to begin everything with a token (Llama 3, Mistral), the layout does so too.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, processors

from unimodal.errors import UserError
from unimodal.pretrained.checkpoint import read_json
from unimodal.pretrained.origin import content, read_origin, template_text
from unimodal.sequence.origin import Origin
from unimodal.sequence.tokenizer import BOS, SPECIALS, Tokenizer

# What pretrained models call the end of a text, by preference.
ENDS = (SPECIALS["endoftext"], "<|end_of_text|>", "</s>")
# Texts whose round trip is checked; all in Unicode's NFC, which some tokenizers bring about.
PROBES = (
    "user\n",
    "a red circle",
    " two  spaces\n\n\tand 1234",
    "größer 圆 🙂👩🏽‍🚀",
    "<|im_end|> </s> [INST]",
)


@dataclass(frozen=True)
class Vocabulary:
    """An extended tokenizer.

    known  ids below this are the checkpoint's own
    kept   special tokens of ours that the checkpoint had already
    added  those that are new
    notes  what the user should know
    """

    tokenizer: Tokenizer
    known: int
    kept: list[str]
    added: list[str]
    notes: list[str]

    @property
    def new_ids(self) -> list[int]:
        """Ids of the new tokens."""
        return [self.tokenizer.backend.token_to_id(token) for token in self.added]


def extend(folder: Path) -> Vocabulary:
    """The tokenizer of a checkpoint with our special tokens.

    Raises UserError if there is no tokenizer.json, its tokenizer cannot give every text back, or config.json
    names tokens that it lacks.
    """
    file = folder / "tokenizer.json"
    others = [n for n in ("tokenizer.model", "vocab.json", "vocab.txt") if (folder / n).is_file()]
    raw = read_json(
        file,
        "expected the tokenizer in `tokenizers` format."
        + (f" Where there is {others[0]}, AutoTokenizer's save_pretrained writes it." if others else ""),
    )
    settings = read_json(folder / "tokenizer_config.json")
    names = SPECIALS | {"endoftext": _end_of_text(raw, settings)} | _habit(raw, file)
    try:
        backend = tokenizers.Tokenizer.from_str(json.dumps(_plain(raw, set(names.values()))))
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"{file} is no tokenizer that `tokenizers` reads: {error}") from error
    vocabulary = backend.get_vocab(with_added_tokens=True)
    known = 1 + max(vocabulary.values(), default=-1)
    added = [token for token in names.values() if token not in vocabulary]
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in names.values()])
    ids = backend.get_vocab(with_added_tokens=True).values()
    if len(set(ids)) < len(ids) or any(backend.token_to_id(token) < known for token in added):
        raise UserError(f"{file}: its ids have gaps, so no token can be added safely; number them anew.")
    if bos := names.get(BOS):
        pair = [(bos, backend.token_to_id(bos))]
        backend.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=pair)
    origin = read_origin(folder, settings, added)
    _check_ids(folder, origin, backend)
    try:
        tokenizer = Tokenizer(backend, names, origin)
    except UserError as error:
        raise UserError(f"{file}: {error}.") from error
    for text in PROBES:
        if (again := tokenizer.decode(tokenizer.encode(text))) != text:
            raise UserError(
                f"{file}: the text {text!r} comes back as {again!r}; expected a tokenizer over bytes that "
                "gives every text back."
            )
    kept = [token for token in names.values() if token not in added]
    return Vocabulary(tokenizer, known, kept, added, _notes(folder, template_text(origin), added))


def _check_ids(folder: Path, origin: Origin, backend: tokenizers.Tokenizer) -> None:
    """Ids that config.json names must be tokens: else the tokenizer is another model's, or they are wrong."""
    for key, value in origin.ids.items():
        for number in value if isinstance(value, list) else [value]:
            if number < 0 or backend.id_to_token(number) is None:
                raise UserError(
                    f"{folder / 'config.json'}: {key} is {number}, which is no token of its tokenizer.json. "
                    "Use the tokenizer that was saved with these weights, or set the key to an id or null."
                )


def _end_of_text(raw: dict[str, Any], settings: dict[str, Any]) -> str:
    """The checkpoint's own end of text, or ours if it has none beside the end of a turn."""
    present = {token.get("content") for token in raw.get("added_tokens") or []}
    for token in (*ENDS, content(settings.get("eos_token"))):
        if token in present and token != SPECIALS["im_end"]:
            return token
    return SPECIALS["endoftext"]


def _habit(raw: dict[str, Any], file: Path) -> dict[str, str]:
    """The token that the tokenizer puts before every text, as `{BOS: token}`; empty if it puts none.

    As transformers, this goes by what the tokenizer does, whatever `add_bos_token` says beside it.
    """
    try:
        backend = tokenizers.Tokenizer.from_str(json.dumps(raw))
        backend.no_truncation()
        with_habit, without = (backend.encode("a", add_special_tokens=on).ids for on in (True, False))
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"{file} is no tokenizer that `tokenizers` reads: {error}") from error
    # What it puts after a text is not taken over: the layout ends turns and texts itself.
    before = next((n for n in range(len(with_habit)) if with_habit[n : n + len(without)] == without), 0)
    if before > 1:
        found = " ".join(map(str, map(backend.id_to_token, with_habit[:before])))
        raise UserError(f"{file}: it begins every text with {found}; expected one token at most, or none.")
    return {BOS: backend.id_to_token(with_habit[0])} if before else {}


def _plain(raw: dict[str, Any], specials: set[str]) -> dict[str, Any]:
    """The tokenizer without anything that adds to a text or cuts it, so that ids and texts are one to one.

    Gone are truncation, padding, tokens put around a text (`layout` does that; the habit of beginning with
    one is put back for other programs), and the space that SentencePiece puts before a text: parts of a turn
    are encoded one by one.
    """
    raw = {**raw, "truncation": None, "padding": None, "post_processor": None}
    for token in raw.get("added_tokens") or []:
        token["special"] = token["special"] or token["content"] in specials
    if (raw.get("model") or {}).get("byte_fallback"):
        raw["normalizer"] = _without(raw.get("normalizer"), "normalizers", "Prepend")
        raw["pre_tokenizer"] = _unspaced(raw.get("pre_tokenizer"))
        raw["decoder"] = _unspaced(_without(raw.get("decoder"), "decoders", "Strip"))
    return raw


def _without(part: dict[str, Any] | None, items: str, kind: str) -> dict[str, Any] | None:
    """A component of a tokenizer, alone or in a sequence, without those of one kind."""
    if part is None or part["type"] == kind:
        return None
    if part["type"] != "Sequence":
        return part
    return {**part, items: [inner for inner in part[items] if inner["type"] != kind]}


def _unspaced(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """The same for Metaspace, which can be told."""
    if part is not None and part["type"] == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    return part


def _notes(folder: Path, template: str, added: list[str]) -> list[str]:
    start = SPECIALS["im_start"]
    if start not in added and (not template or start in template):
        return []
    why = "its chat template is not ChatML" if template else "it has no chat template"
    how = "newly added" if start in added else "there, but not used by its template"
    return [
        f"{folder.name}: {why}. Turns are written as ChatML, with {start} and {SPECIALS['im_end']} {how}: "
        "the model has to be fine-tuned before it can talk."
    ]
