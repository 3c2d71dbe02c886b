"""Text files to rows of about equal length, cut where a reader would pause.

The rows of a file put together are the file again: every cut is between two characters, at the last end of a
paragraph that fits, else of a line, a sentence or a word.  The end of every file is held out, so that no row
of `val` lies between two of `train`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data_tools.real import SPLITS, Example, Made, check_share, write_meta, write_split
from data_tools.shapes.build import empty_folder
from unimodal.errors import UserError

ADDRESS = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt "
    "(tinyshakespeare, if you have no text of your own)"
)
PAUSES = tuple(map(re.compile, (r"\n[^\S\n]*\n\s*", r"\n", r"[.!?][\"')\]]?\s+", r"\s+")))


def make_plain(
    source: str | Path,
    out: str | Path,
    characters: int = 1000,
    val: float = 0.1,
    suffixes: tuple[str, ...] = (".txt",),
) -> Made:
    """Write rows from a text file, or from every text file below a folder in the order of their paths.

    characters  most characters a row
    val         share of each file held out, from its end
    Truth: kind "text/plain", the file, and start and end of the row in it (characters).
    Raises UserError if there is no text, a file is not UTF-8, or a file is too short to be split.
    """
    check_share(val)
    if characters < 1:
        raise UserError(f"characters {characters}; expected at least 1 a row")
    texts = dict(read_texts(Path(source), suffixes))
    out = empty_folder(Path(out))
    made = Made(notes=[f"{len(texts)} files, {sum(map(len, texts.values()))} characters"])
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for name, text in texts.items():
        border = round(len(text) * (1 - val))
        spans = list(chunks(text, characters))
        for start, end in spans:
            if not text[start:end].strip():
                made.left_out.setdefault("nothing but white space", []).append(f"{name} from {start}")
                continue
            truth = {"kind": "text/plain", "file": name, "start": start, "end": end}
            split = "val" if (start + end) / 2 > border else "train"
            splits[split].append(({"text": text[start:end]}, truth))
    for split, examples in splits.items():
        made.rows[split] = write_split(out, split, examples)
    write_meta(out, made, str(source), "that of the files", characters=characters, val=val)
    return made


def read_texts(source: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(path relative to the source, text) of the file, or of every file below the folder with a suffix."""
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; expected text. For example {ADDRESS}")
    paths = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.suffix in suffixes)
    paths = [path for path in paths if path.is_file()]
    if not paths:
        expected = " or ".join(f"*{suffix}" for suffix in suffixes)
        raise UserError(f"{source}: no text file in it; expected {expected}. For example {ADDRESS}")
    for path in paths:
        try:
            text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: byte {error.start} is not UTF-8; expected plain text. Convert it, as by iconv."
            ) from error
        yield path.name if path == source else path.relative_to(source).as_posix(), text


def chunks(text: str, characters: int) -> Iterator[tuple[int, int]]:
    """(start, end) of pieces of at most `characters`, together the whole text.

    A cut comes after the last pause that fits, of the strongest sort that leaves at least half a piece: a
    paragraph at the front of a long one does not make a piece of its own.  A word longer than that is cut.
    """
    start = 0
    while len(text) - start > characters:
        end = start + characters
        for pause in PAUSES:
            found = [m.end() for m in pause.finditer(text, start, end) if m.end() - start >= characters / 2]
            if found:
                end = found[-1]
                break
        yield start, end
        start = end
    if start < len(text):
        yield start, len(text)
