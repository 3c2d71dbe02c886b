"""WebDataset: tar files in which neighbours of one stem are a sample (github.com/webdataset/webdataset).

`0007.jpg` is the field image, `0007.txt` text, `0007.input_image.png` input_image; the object in `0007.json`
adds its fields.  Nothing is unpacked to disk, and no other kind of file is opened.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from unimodal.data.importers.columns import FIELDS, any_rows
from unimodal.data.importers.folders import files
from unimodal.data.importers.importer import Drop, Importer, Look, Options
from unimodal.data.importers.tables import PICTURES, Records
from unimodal.errors import UserError

ENDINGS = (".tar", ".tar.gz", ".tgz")
# The stem ends at the first dot of the file's name, wherever its folder has dots.
NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")


def shards(path: Path) -> list[Path]:
    """The tar files of a path, in order."""
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in found if file.name.lower().endswith(ENDINGS) and file.is_file()]


def read_samples(path: Path, options: Options) -> Records:
    """Every sample of every shard; where = "shard:stem".  Raises UserError if a tar cannot be read on."""
    found = shards(path)
    if not found:
        raise UserError(f"{path}: expected a .tar file or a folder of them. Mend the path.")
    for other in (path / name for name in files(path)) if path.is_dir() else ():
        if other not in found:
            yield str(other), Drop("no tar file of the folder", f"{other}: not a tar file in {path} itself.")
    for shard in found:
        sample: Sample | None = None
        for name, data in _members(shard):
            match = NAME.fullmatch(name)
            if match is None:
                where = f"{shard}:{name}"
                yield where, Drop("file of no sample", f"{where}: its name is not STEM.ENDING. Rename it.")
                continue
            if sample is None or match[1] != sample.stem:
                if sample is not None:
                    yield sample.where, sample.record()
                sample = Sample(match[1], f"{shard}:{match[1]}")
            sample.add(match[2], data)
        if sample is not None:
            yield sample.where, sample.record()


def _members(shard: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file; what no field is made from is not read."""
    try:
        with tarfile.open(shard, "r|*") as archive:
            for member in archive:
                if member.isdir() or PurePosixPath(member.name).name.startswith("."):
                    continue
                wanted = PurePosixPath(member.name).suffix.lower() in PICTURES | {".txt", ".json"}
                yield member.name, archive.extractfile(member).read() if member.isreg() and wanted else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{shard}: not readable to its end ({error}). Fetch it again.") from error


@dataclass
class Sample:
    """Neighbours of one stem: fields with a file, fields that a .json names, and what was wrong first."""

    stem: str
    where: str
    files: dict = field(default_factory=dict)
    said: dict = field(default_factory=dict)
    trouble: Drop | None = None

    def record(self) -> dict | Drop:
        """All fields; where a file and the .json name the same, the latter's is `json.NAME`."""
        said = {f"json.{name}" if name in self.files else name: value for name, value in self.said.items()}
        return self.trouble or said | self.files

    def add(self, ending: str, data: bytes) -> None:
        """Take a file in, under the field that its ending names."""
        name, _, kind = ending.rpartition(".")
        try:
            if f".{kind.lower()}" in PICTURES:
                self._put(name or "image", data)
            elif kind.lower() == "txt":
                self._put(name or "text", self._text(data).strip())
            elif kind.lower() == "json":
                value = self._json(data)
                self.said |= value if isinstance(value, dict) and not name else {name or "json": value}
            else:
                self._put(ending, True)  # told as a field that rows have no place for
        except Drop as drop:
            self.trouble = self.trouble or drop

    def _put(self, name: str, value) -> None:
        if name in self.files:
            sentence = f"{self.where}: two files are the field {name!r}. Rename one."
            raise Drop("two files for one field", sentence)
        self.files[name] = value

    def _text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            sentence = f"{self.where}: a text is not UTF-8 at byte {error.start}. Encode it so."
            raise Drop("text not UTF-8", sentence) from error

    def _json(self, data: bytes):
        text = self._text(data)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            sentence = f"{self.where}: its .json is not JSON ({error}). Mend it."
            raise Drop("broken JSON in a sample", sentence) from error


def _fits(look: Look) -> str | None:
    found = shards(look.path)
    return f"{found[0].name} is a tar file" if found else None


WEBDATASET = Importer(
    about="WebDataset: tar files, a sample being a picture, .txt and .json of one stem",
    sign="a .tar file, or a folder of them",
    fields=FIELDS,
    fits=_fits,
    read=read_samples,
    rows=any_rows,
)
