"""The adapters of a loaded model: several at hand, one or none in use.

peft is imported when the first adapter comes: a model without one need not wait for it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unimodal.adapters.base import identity, refusal
from unimodal.adapters.section import Settings, apply_settings
from unimodal.errors import UserError, nearest
from unimodal.model.unified import UnifiedModel

if TYPE_CHECKING:
    from unimodal.adapters.attached import Attached
    from unimodal.adapters.folder import Adapter

OFF = "off"
PLAIN = ("adapter", "model")  # names of folders that say nothing: their run's name is taken instead

Adapters = str | Path | Sequence[str | Path] | Mapping[str, str | Path] | None
"""Adapter folders: one, several, or by name; a string may be NAME=FOLDER."""


def named(adapters: Adapters) -> dict[str, Path]:
    """Folders by the names they are switched by; a folder without a name is called after its run."""
    if adapters is None:
        return {}
    if isinstance(adapters, Mapping):
        pairs = [(name, Path(folder)) for name, folder in adapters.items()]
    else:
        folders = [adapters] if isinstance(adapters, str | Path) else adapters
        pairs = [_named(folder) for folder in folders]
    for name, folder in pairs:
        if name == OFF or not name:
            raise UserError(f"{folder} cannot be called {name!r}; give another name, as NAME={folder}")
        if [other for other, _ in pairs].count(name) > 1:
            raise UserError(f"two adapters would be called {name!r}; give them names, as NAME={folder}")
    return dict(pairs)


def _named(text: str | Path) -> tuple[str, Path]:
    name, equals, folder = str(text).partition("=")
    if equals and not Path(text).exists():
        return name.strip(), Path(folder).expanduser()
    folder = Path(text).expanduser()
    whole = folder.resolve()
    return (whole.parent.name if whole.name in PLAIN else whole.name), folder


class Shelf:
    """Adapters for one model, which is changed in place as they are put in and taken out.

    folder  what the model was loaded from, by whose weights adapters are checked; None refuses all
    """

    def __init__(self, model: UnifiedModel, folder: Path | None):
        self.model, self.folder = model, folder
        self.active: str | None = None
        self._adapters: dict[str, Adapter] = {}
        self._attached: Attached | None = None
        self._settings: Settings | None = None  # the model's own
        self._sha256: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters at hand, in the order they came."""
        return tuple(self._adapters)

    def add(self, name: str, folder: Path) -> None:
        """Take an adapter to hand; it is not used yet.

        Raises UserError if it is not one, belongs to other weights, or its name is another's.
        """
        from unimodal.adapters.folder import read_adapter

        adapter = read_adapter(folder)
        known = self._adapters.get(name)
        if known is not None and known.folder.resolve() != folder.resolve():
            raise UserError(f"{name!r} is already the adapter {known.folder}; give another, as NAME={folder}")
        if self.folder is None:
            raise UserError(
                "this model was not loaded from a folder, so no adapter can be checked against it"
            )
        self._sha256 = self._sha256 or identity(self.folder)
        if adapter.note.sha256 != self._sha256:
            raise refusal(adapter.note, folder, self.folder)
        if name == self.active:
            self.use(None)  # what is in use is put in again from the folder as it is now
        self._adapters[name] = adapter

    def use(self, name: str | None) -> None:
        """Use one adapter and no other, or none.  Raises UserError for a name that is not at hand."""
        if name is not None and name not in self._adapters:
            known = f"; at hand: {', '.join(self._adapters)}" if self._adapters else "; there are none"
            raise UserError(f"there is no adapter {name!r}{nearest(name, self._adapters)}{known}")
        if name == self.active:
            return
        self._take_out()
        if name is not None:
            self._put_in(self._adapters[name])
            self.active = name

    def _put_in(self, adapter: "Adapter") -> None:
        from unimodal.adapters.attached import Attached

        self._settings = Settings.of(self.model.config)
        try:
            apply_settings(self.model, adapter.note.settings)
            where = str(adapter.folder)
            self._attached = Attached(self.model, adapter.config, adapter.note.target, where)
            self._attached.fill(adapter.tensors, where)
        except UserError:
            self._take_out()
            raise

    def _take_out(self) -> None:
        if self._attached is not None:
            self._attached.detach()
        if self._settings is not None:
            apply_settings(self.model, self._settings)
        self._attached = self._settings = self.active = None
