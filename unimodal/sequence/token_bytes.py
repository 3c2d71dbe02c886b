"""Which bytes each token of a vocabulary stands for, so that any ids join to exact UTF-8.

Two conventions are known.  Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM) writes every byte as one printable
character.  SentencePiece BPE with byte fallback (Llama 2, Mistral) writes text as it is, a space as `▁`, and
bytes that no token covers as `<0x0A>`.
"""

import re

import tokenizers
from tokenizers import pre_tokenizers

from unimodal.errors import UserError

SPACE = "▁"
BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def bytes_of_tokens(backend: tokenizers.Tokenizer) -> dict[int, bytes]:
    """Bytes of every token by its id; none for special tokens.

    Raises UserError for a vocabulary of neither convention.
    """
    pieces = getattr(backend.model, "byte_fallback", False)
    of = _piece_bytes if pieces else _byte_level(_byte_of_character())
    added = backend.get_added_tokens_decoder()
    table: dict[int, bytes] = {}
    for token, number in backend.get_vocab(with_added_tokens=True).items():
        if number in added:
            table[number] = b"" if added[number].special else added[number].content.encode()
        else:
            table[number] = of(token)
    if pieces and (lost := {bytes([b]) for b in range(128, 256)} - set(table.values())):
        raise UserError(f"its byte fallback lacks {len(lost)} bytes, so not every text could be written")
    return table


def _byte_of_character() -> dict[str, int]:
    """Byte-level BPE writes each byte as one printable character; this is the way back.

    Printable Latin-1 characters stand for their own byte, the other bytes follow in order above 255.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    own = {c: ord(c) for c in alphabet if ord(c) < 256}
    others = sorted(set(range(256)) - set(own.values()))
    return own | dict(zip((c for c in alphabet if ord(c) >= 256), others, strict=True))


def _byte_level(to_byte: dict[str, int]):
    def of(token: str) -> bytes:
        try:
            return bytes([to_byte[character] for character in token])
        except KeyError as error:
            raise UserError(
                f"it is no byte-level BPE tokenizer and none with byte fallback: {token!r} has the character "
                f"{error}"
            ) from error

    return of


def _piece_bytes(token: str) -> bytes:
    if match := BYTE.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace(SPACE, " ").encode()
