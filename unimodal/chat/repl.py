"""The chat in a terminal, in a pipe, or for a single prompt.

The greeting comes at once and the model loads in the background while the person types, so that the first
reply is as early as it can be.  Only a person at a terminal gets prompts and greetings; a pipe gets replies.
"""

import re
import sys
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.patch_stdout import patch_stdout
from rich.console import Console
from rich.markup import escape

from unimodal.chat.commands import CommandCompleter, obey
from unimodal.chat.pictures import open_image
from unimodal.chat.session import Session
from unimodal.chat.terminal import FOLDER, Screen
from unimodal.errors import UserError

TRY = "draw a red circle left of a blue square", "now make the circle green", "how many shapes are there?"

# What a slow terminal says of itself (attributes, the size of a cell) when nobody waits for it any more
# ends up in front of what is typed first.
LATE = re.compile(r"^(\[\?[\d;]*c|\[\d+(;\d+)+t)+")

Loader = Callable[[str], Any]


class Repl:
    """One chat: a session, a screen, and a model that may still be loading."""

    def __init__(self, name: str, load: Loader, screen: Screen):
        self.name = name
        self.screen = screen
        self.save_dir = screen.folder
        self.session = Session(model=None)
        self._load = load
        self._loading: Future = Future()

    def start_loading(self) -> None:
        """Load the model in a thread; the first reply waits for it."""

        def work() -> None:
            try:
                self._loading.set_result(self._load(self.name))
            except BaseException as error:
                self._loading.set_exception(error)  # raised again where the model is asked for

        Thread(target=work, daemon=True, name="load").start()

    @property
    def model(self) -> Any:
        """The session's model; waits for the first to be loaded, and raises what went wrong in loading it."""
        if self.session.model is None:
            if not self._loading.done() and self.screen.console.is_terminal:
                with self.screen.console.status(f"loading {escape(self.name)}"):
                    wait([self._loading])
            self.session.model = self._loading.result()
        return self.session.model

    def load(self, name: str) -> str:
        """Put another model into the session; the conversation stays, so /retry compares the two."""
        _ = self.model  # else the first model, still loading, would take the place of this one
        self.session.model = self._load(name)
        return introduce(self.session.model)

    def answer(self, line: str) -> None:
        """Do what one line says: a message or a slash command.  Raises EOFError for /quit, UserError."""
        line = line.strip()
        answer = obey(self, line) if line.startswith("/") else self.session.say(line)
        if isinstance(answer, Generator):
            _ = self.model  # a reply needs it; everything else works while it loads
            self.screen.show(answer)
        else:
            self.screen.console.print(answer, style="dim" if isinstance(answer, str) else None, markup=False)

    def interact(self, prompt: PromptSession) -> None:
        """Talk until Ctrl-D or /quit.  Ctrl-C stops a reply, or clears the line at the prompt."""
        console = self.screen.console
        self._greet()
        self._loading.add_done_callback(lambda _: self._announce(prompt.app))
        while True:
            try:
                with patch_stdout(raw=True):
                    line = prompt.prompt(pre_run=lambda: self._leave_if_failed(prompt.app))
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            line = LATE.sub("", line)
            if not line.strip():
                continue
            try:
                self.answer(line)
            except KeyboardInterrupt:
                console.print("stopped; Ctrl-D or /quit leaves", style="dim")
            except EOFError:
                return
            except UserError as error:
                if self.session.model is None and self._loading.done() and self._loading.exception():
                    raise
                console.print(str(error), style="red", markup=False)

    def pipe(self, lines: Iterable[str]) -> None:
        """Answer each line that is not blank, without prompts; a mistake ends it.  Raises UserError."""
        for line in lines:
            try:
                if line.strip():
                    self.answer(line)
            except EOFError:
                return

    def _greet(self) -> None:
        console = self.screen.console
        console.print(f"[bold]unimodal[/] chat with [bold]{escape(self.name)}[/]. Things to try:")
        for line in TRY:
            console.print(f"  [cyan]{line}[/]")
        console.print("Attach a picture with [bold]/image PATH[/]; [bold]/help[/] lists the commands.\n")

    def _announce(self, app: Application) -> None:
        """When loading ends (in its thread): say what was loaded, or leave the prompt if it failed."""
        if self._loading.exception() is None:
            self.screen.console.print(introduce(self._loading.result()), style="dim", markup=False)
        elif (loop := app.loop) is not None:
            with suppress(RuntimeError):  # the prompt has just ended; the next one, or a reply, will tell
                loop.call_soon_threadsafe(self._leave_if_failed, app)

    def _leave_if_failed(self, app: Application) -> None:
        """End the running prompt with what went wrong in loading, if anything did."""
        failed = self.session.model is None and self._loading.done() and self._loading.exception()
        if failed and app.future is not None and not app.future.done():
            app.exit(exception=failed)


def introduce(model: Any) -> str:
    """One line about a loaded model: its name and size."""
    return f"{model.name}: {model.size / 1e6:.1f} M parameters"


def history() -> History:
    """What was typed in earlier chats; only this one's where the home folder cannot be written."""
    from typer import get_app_dir

    path = Path(get_app_dir("unimodal")) / "chat_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


def chat(
    name: str,
    load: Loader,
    prompt: str | None = None,
    images: Iterable[str] = (),
    save_dir: str | Path = FOLDER,
    console: Console | None = None,
) -> None:
    """Chat with the model `name`: for one `prompt`, over piped lines, or with a person at the terminal.

    load      makes a model of a name, e.g. `unimodal.load`
    images    paths of pictures that the first message carries
    save_dir  where pictures are saved; none is ever overwritten
    Raises UserError for a model or picture that cannot be read, and for any mistake where no person is
    there to mend it.
    """
    pictures = [open_image(path) for path in images]
    screen = Screen(console, save_dir)  # asks the terminal what it can show, before anything reads the keys
    repl = Repl(name, load, screen)
    repl.start_loading()
    for picture in pictures:
        repl.session.attach(picture)
    if prompt is not None:
        repl.answer(prompt)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        repl.interact(PromptSession("> ", history=history(), completer=CommandCompleter()))
    else:
        repl.pipe(sys.stdin)
