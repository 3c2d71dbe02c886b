"""Text to token ids and back: byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2) by `tokenizers`.

Every UTF-8 text survives the round trip exactly, and text can never turn into a special token: what marks
turns and images is put in by `layout` alone, by id.  Folders are Hugging Face's: `AutoTokenizer` reads them.
"""

import codecs
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from unimodal.errors import UserError

SPECIALS = {
    "endoftext": "<|endoftext|>",
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "image_start": "<|image_start|>",
    "image_end": "<|image_end|>",
    "pad": "<|pad|>",
}
TEMPLATE_WORDS = ("user", "assistant", "system")  # one token each, so a turn costs the same for every role
CACHED_LENGTH = 200  # characters; prompts and answers repeat, long texts do not

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|image_start|><|image_end|>' }}"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _byte_of_character() -> dict[str, int]:
    """Byte-level BPE writes each byte as one printable character; this is the way back.

    Printable Latin-1 characters stand for their own byte, the other bytes follow in order above 255.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    own = {c: ord(c) for c in alphabet if ord(c) < 256}
    others = sorted(set(range(256)) - set(own.values()))
    return own | dict(zip((c for c in alphabet if ord(c) >= 256), others, strict=True))


class Tokenizer:
    """Encodes text to ids and back; knows the ids of the special tokens (`.im_start`, `.pad`, ...).

    backend  a byte-level `tokenizers.Tokenizer` that holds every token of SPECIALS
    Raises UserError if a special token is missing.
    """

    endoftext: int
    im_start: int
    im_end: int
    image_start: int
    image_end: int
    pad: int

    def __init__(self, backend: tokenizers.Tokenizer):
        self.backend = backend
        backend.encode_special_tokens = True  # "<|im_end|>" in a text is eight or so ordinary tokens
        for name, token in SPECIALS.items():
            if (number := backend.token_to_id(token)) is None:
                raise UserError(
                    f"the tokenizer has no token {token!r}; expected all of {', '.join(SPECIALS.values())}. "
                    "Use a tokenizer made by unimodal, or add the missing tokens to it."
                )
            setattr(self, name, number)
        to_byte = _byte_of_character()
        special = {token.content for token in backend.get_added_tokens_decoder().values()}
        self._bytes = {
            number: b"" if token in special else bytes(to_byte[c] for c in token)
            for token, number in backend.get_vocab(with_added_tokens=True).items()
        }
        self._cached = lru_cache(maxsize=1 << 16)(self._encode)

    def __len__(self) -> int:
        return self.backend.get_vocab_size(with_added_tokens=True)

    def __reduce__(self):
        return _from_json, (self.backend.to_str(),)

    def _encode(self, text: str) -> tuple[int, ...]:
        try:
            return tuple(self.backend.encode(text, add_special_tokens=False).ids)
        except (UnicodeEncodeError, TypeError) as error:
            raise UserError(
                f"cannot encode {text!r:.80}: expected a string of valid Unicode ({error}). "
                "Remove what is not text, such as a lone surrogate."
            ) from error

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a special token, whatever the text says.  Raises UserError if not Unicode."""
        return list(self._cached(text) if len(text) <= CACHED_LENGTH else self._encode(text))

    def bytes_of(self, number: int) -> bytes:
        """UTF-8 bytes of one token, possibly a part of a character; none for a special token."""
        return self._bytes.get(number, b"")

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` without special tokens; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.bytes_of(int(i)) for i in ids).decode("utf-8", "replace")

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, as `transformers.AutoTokenizer` reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(folder / "tokenizer.json"))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": SPECIALS["im_end"],
            "pad_token": SPECIALS["pad"],
            "additional_special_tokens": [t for n, t in SPECIALS.items() if n not in ("im_end", "pad")],
            "clean_up_tokenization_spaces": False,
            "add_bos_token": False,
            "chat_template": CHAT_TEMPLATE,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Read what `save` wrote.  Raises UserError if the file is missing, broken or not byte-level."""
        file = Path(folder) / "tokenizer.json"
        if not file.is_file():
            raise UserError(f"no tokenizer at {file}; expected the folder of a saved model or tokenizer.")
        try:
            return cls(tokenizers.Tokenizer.from_file(str(file)))
        except KeyError as error:
            raise UserError(
                f"{file} is no byte-level BPE tokenizer: it has the character {error}."
            ) from error
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        except Exception as error:  # tokenizers raises bare Exception
            raise UserError(f"{file} is no tokenizer that `tokenizers` reads: {error}") from error


def _from_json(text: str) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(text))


class StreamDecoder:
    """Text of a growing list of ids: a character comes out when its last byte is there, never half of it."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, number: int) -> str:
        """The characters that token `number` completes, possibly none."""
        return self._decoder.decode(self._tokenizer.bytes_of(int(number)))

    def finish(self) -> str:
        """What is left when no more ids come: U+FFFD for a character that was never completed, or nothing."""
        return self._decoder.decode(b"", final=True)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn merges from `texts`: special tokens first, then 256 bytes, then at most the rest of `vocab_size`.

    Digits stand alone; the words of the turn template are one token each.  The result is a function of the
    texts alone.  Raises UserError if `vocab_size` cannot hold bytes, specials and template words.
    """
    specials = list(SPECIALS.values())
    floor = len(specials) + 256 + sum(len(word) for word in TEMPLATE_WORDS)
    if vocab_size < floor:
        raise UserError(
            f"vocab_size {vocab_size} is too small; a byte-level vocabulary needs at least {floor}."
        )
    learner = _backend({}, [])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    room = vocab_size - len(specials) - 256
    return Tokenizer(_backend(*_with_template_words(merges, room)))


def _with_template_words(merges: list[tuple[str, str]], room: int) -> tuple[dict[str, int], list]:
    """Vocabulary and at most `room` merges: the learned ones, the last of them giving way to the words.

    A word that the learned merges leave in pieces gets merges of its own at the lowest priority, so no
    other text is cut differently for them.
    """
    for kept in range(min(room, len(merges)), -1, -1):
        chosen = list(merges[:kept])
        for word in TEMPLATE_WORDS:
            pieces = _backend(_vocabulary(chosen), chosen).encode(word).tokens
            for i in range(1, len(pieces)):
                chosen.append(("".join(pieces[:i]), pieces[i]))
        if len(chosen) <= room:
            return _vocabulary(chosen), chosen
    raise AssertionError("vocab_size was checked to have room for the words")


def _vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    tokens = [*SPECIALS.values(), *sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def _backend(vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    if vocabulary:
        backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS.values()])
    return backend
