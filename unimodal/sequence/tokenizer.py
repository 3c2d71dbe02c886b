"""Text to token ids and back: BPE over bytes (Sennrich et al. 2016; bytes as in GPT-2) by `tokenizers`.

Every UTF-8 text survives the round trip exactly, and text can never turn into a special token: what marks
turns and images is put in by `layout` alone, by id.  Folders are Hugging Face's: `AutoTokenizer` reads them.
A pretrained tokenizer keeps what it does to texts first, as Qwen's Unicode NFC.
"""

import codecs
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from unimodal.errors import UserError
from unimodal.sequence.origin import Origin
from unimodal.sequence.token_bytes import bytes_of_tokens

SPECIALS = {
    "endoftext": "<|endoftext|>",
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "image_start": "<|image_start|>",
    "image_end": "<|image_end|>",
    "pad": "<|pad|>",
}
BOS = "bos"  # in a pretrained tokenizer's names: what it puts before everything; others have none
OWN_NAMES = "unimodal_tokens"  # key in tokenizer_config.json: special tokens called otherwise than above
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


class Tokenizer:
    """Encodes text to ids and back; knows the ids of the special tokens (`.im_start`, `.pad`, ...).

    backend  a `tokenizers.Tokenizer` over bytes that holds every special token
    names    special tokens that are called otherwise than in SPECIALS, as a pretrained model's end of text;
             and `bos`, where it is that model's habit to begin every sequence with one
    origin   what that model's checkpoint said; None of a tokenizer that was trained here
    Raises UserError if a special token is missing, or the vocabulary is not over bytes.
    """

    endoftext: int
    im_start: int
    im_end: int
    image_start: int
    image_end: int
    pad: int
    bos: int | None = None

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        names: dict[str, str] | None = None,
        origin: Origin | None = None,
    ):
        self.backend, self.origin = backend, origin
        self.names = SPECIALS | (names or {})
        backend.encode_special_tokens = True  # "<|im_end|>" in a text is eight or so ordinary tokens
        for name, token in self.names.items():
            if (number := backend.token_to_id(token)) is None:
                every = ", ".join(self.names.values())
                raise UserError(
                    f"the tokenizer has no token {token!r}; expected all of {every}. "
                    "Use a tokenizer made by unimodal, or add the missing tokens to it."
                )
            setattr(self, name, number)
        self._bytes = bytes_of_tokens(backend)
        self._cached = lru_cache(maxsize=1 << 16)(self._encode)

    def __len__(self) -> int:
        return 1 + max(self._bytes)

    def __reduce__(self):
        return _from_json, (self.backend.to_str(), self.names, self.origin)

    @property
    def new_ids(self) -> list[int]:
        """Ids that a pretrained model did not know and that stand in sequences: all but the padding's."""
        added = self.origin.added if self.origin else []
        return [self.backend.token_to_id(token) for token in added if token != self.names["pad"]]

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

    def at_most(self, text: str) -> int:
        """A number that the tokens of `text` do not exceed, at no cost: every token holds a byte or more."""
        # Unicode's normal forms may make three bytes of one, but not of ASCII; a space may come before all.
        grown = 1 if self.backend.normalizer is None or text.isascii() else 3
        return grown * len(text.encode("utf-8", "surrogatepass")) + 1

    def bytes_of(self, number: int) -> bytes:
        """UTF-8 bytes of one token, possibly a part of a character; none for a special token."""
        return self._bytes.get(number, b"")

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` without special tokens; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.bytes_of(int(i)) for i in ids).decode("utf-8", "replace")

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, as `transformers.AutoTokenizer` reads them.

        And `origin.json`, if there is an origin.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = self.backend.to_str(pretty=True)  # its own `save` raises no OSError where the disk is full
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")
        named = ("im_end", "pad", BOS)  # under keys of their own
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": self.names["im_end"],
            "pad_token": self.names["pad"],
            "additional_special_tokens": [t for n, t in self.names.items() if n not in named],
            "clean_up_tokenization_spaces": False,
            "add_bos_token": BOS in self.names,
            "chat_template": CHAT_TEMPLATE,
        }
        if BOS in self.names:
            settings |= {"bos_token": self.names[BOS], "chat_template": "{{ bos_token }}" + CHAT_TEMPLATE}
        if own := {name: token for name, token in self.names.items() if token != SPECIALS.get(name)}:
            settings[OWN_NAMES] = own
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        if self.origin is not None:
            self.origin.save(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Read what `save` wrote.  Raises UserError if the file is missing, broken or not byte-level."""
        file = Path(folder) / "tokenizer.json"
        if not file.is_file():
            raise UserError(f"no tokenizer at {file}; expected the folder of a saved model or tokenizer.")
        settings = file.with_name("tokenizer_config.json")
        try:
            names = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
            origin = Origin.load(file.parent)
            return cls(tokenizers.Tokenizer.from_file(str(file)), names.get(OWN_NAMES), origin)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        except Exception as error:  # tokenizers raises bare Exception
            raise UserError(f"{file} is no tokenizer that `tokenizers` reads: {error}") from error


def _from_json(text: str, names: dict[str, str], origin: Origin | None) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(text), names, origin)


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
