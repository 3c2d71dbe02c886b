"""Weights in a folder, read and written a few at a time.

safetensors in one file, or in shards that an index names.  Nothing is held but the tensor or the shard
that is being worked on, so a checkpoint can be loaded or converted in little more memory than it takes.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unimodal.errors import UserError

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
SMALL_SHARD = 64 * 2**20  # bytes; a shard is at least so large
SHARDS = 8  # about so many, if they are larger than SMALL_SHARD


class Shape(NamedTuple):
    """What a tensor will be before it is there."""

    size: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Size in memory and on the disk."""
        return prod(self.size) * self.dtype.itemsize


class Weights:
    """The tensors of a folder by name.  Raises UserError if there are none or a file is damaged."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._file: dict[str, safe_open] = {}
        self._path: dict[str, Path] = {}
        for path in _files(folder):
            try:
                # Not memory-mapped: mapped pages would count as memory as long as the file is open.
                opened = safe_open(path, framework="pt", backend="pread")
            except (SafetensorError, OSError) as error:
                raise UserError(f"{path} is damaged: {error}. Copy or download the file again.") from error
            self._file |= dict.fromkeys(opened.keys(), opened)
            self._path |= dict.fromkeys(opened.keys(), path)

    @property
    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._file)

    def size(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return tuple(self._file[name].get_slice(name).get_shape())

    def kind(self, name: str) -> str:
        """Its type as safetensors calls it, as `BF16`."""
        return self._file[name].get_slice(name).get_dtype()

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU, as it is stored."""
        try:
            return self._file[name].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{name} in {self.folder} is damaged: {error}") from error

    def rows(self, name: str, count: int) -> Iterator[Tensor]:
        """The same in pieces of `count` rows, for a table that should not be there twice."""
        for start in range(0, self.size(name)[0], count):
            # Mapped, since only so a part is read alone; and anew, to be rid of the pages that were read.
            with safe_open(self._path[name], framework="pt") as file:
                yield file.get_slice(name)[start : start + count].clone()


def _files(folder: Path) -> list[Path]:
    if (folder / FILE).is_file():
        return [folder / FILE]
    if (folder / INDEX).is_file():
        return _shards(folder)
    pickles = sorted(path.name for end in PICKLES for path in folder.glob(end))
    if pickles:
        raise UserError(
            f"{folder} holds its weights only as {pickles[0]}, a pickle, which could run code when read. "
            f"Expected {FILE}: where you trust it, load it with transformers and save_pretrained it again, "
            "which writes safetensors."
        )
    raise UserError(
        f"{folder} has no weights, so it is incomplete or damaged: expected {FILE}, or shards and {INDEX}."
    )


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is no index of shards ({error!r}); copy it again.") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(f"{index} names {name!r}; expected safetensors files in the same folder.")
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is incomplete: {INDEX} names {name}, which is not there. Copy or download it."
            )
    return [folder / name for name in names]


def fill(
    module: nn.Module,
    weights: Weights,
    device: torch.device | str,
    dtype: torch.dtype,
    exact: tuple[str, ...] = (),
) -> None:
    """Put weights into a module, one after another; names and shapes must be the module's own.

    exact  beginnings of names that stay in float32 whatever `dtype` is
    Raises UserError naming what is missing, unknown or of another shape.
    """
    targets = module.state_dict(keep_vars=True)
    wrong = [f"{name} is missing" for name in sorted(targets.keys() - weights.names)]
    wrong += [f"{name} is unknown" for name in sorted(weights.names - targets.keys())]
    wrong += [
        f"{name} has shape {weights.size(name)} instead of {tuple(targets[name].shape)}"
        for name in sorted(targets.keys() & weights.names)
        if weights.size(name) != tuple(targets[name].shape)
    ]
    if wrong:
        raise UserError(
            f"the weights in {weights.folder} do not fit its config.json: {some(wrong)}. Expected the "
            f"{FILE} that was saved with this config.json."
        )
    for name, target in targets.items():
        value = weights.read(name)
        kind = torch.float32 if name.startswith(exact) else dtype
        target.data = value.to(device, kind if value.is_floating_point() else None)


def narrowed(value: Tensor, dtype: torch.dtype, name: str, where: str | Path = "the weights") -> Tensor:
    """A weight on the CPU in the type it is to be saved in.

    Raises UserError if float16 cannot hold it: what is beyond 65,504 would become infinite.
    """
    out = value.detach().to("cpu", dtype)
    if dtype == torch.float16 and not out.isfinite().all():
        largest = value.abs().max().item()
        raise UserError(f"{where}: {name} reaches {largest:.3g}, which float16 cannot hold. Use bfloat16.")
    return out


def some(words: list[str], most: int = 3) -> str:
    """The first few of a long list."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


class _Unwritten(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def unwritten() -> Iterator[None]:
    """Modules made inside have weights that nothing has written to, which takes neither time nor memory."""
    with _Unwritten():
        yield


def write(folder: Path, plan: dict[str, Shape], make: Callable[[str], Tensor]) -> None:
    """Write tensors to `folder`, in shards when large, each made when its turn has come.

    plan  what every tensor will be, in the order in which `make` is asked for them
    """
    from huggingface_hub import split_state_dict_into_shards_factory

    total = sum(shape.bytes for shape in plan.values())
    split = split_state_dict_into_shards_factory(
        plan,
        get_storage_size=lambda shape: shape.bytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max(SMALL_SHARD, total // SHARDS),
    )
    for file, names in split.filename_to_tensors.items():
        shard = {name: make(name).contiguous() for name in names}
        for name, tensor in shard.items():
            assert Shape(tuple(tensor.shape), tensor.dtype) == plan[name], name
        save_file(shard, folder / file, metadata={"format": "pt"})
        del shard, tensor  # before the next shard is made
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
