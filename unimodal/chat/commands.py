"""The slash commands of the chat: what they are called, take and do.

Each is a plain function of the chat and the text behind its name.  A reply that a command starts is
returned, to be shown like any other; a sentence is returned to be printed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from prompt_toolkit.completion import (
    CompleteEvent,
    Completer,
    Completion,
    PathCompleter,
    WordCompleter,
    merge_completers,
)
from prompt_toolkit.document import Document
from rich.table import Table
from rich.text import Text

from unimodal.chat.pictures import open_image
from unimodal.chat.session import Reply, Session
from unimodal.errors import UserError, nearest


class Chat(Protocol):
    """What a command may touch."""

    session: Session
    save_dir: Path
    model: Any

    def load(self, name: str) -> str:
        """Put another model into the session; return a sentence about it."""


Answer = Reply | str | Table | None


@dataclass(frozen=True)
class Command:
    """A slash command: the argument as shown in the help, what it does, the function, completion."""

    argument: str
    help: str
    run: Callable[[Chat, str], Answer]
    completer: Completer | None = None


def obey(chat: Chat, line: str) -> Answer:
    """Run a line that starts with a slash.  Raises UserError for an unknown command or a bad argument."""
    name, _, argument = line.strip().partition(" ")
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}{nearest(name, COMMANDS)}; /help lists them all")
    return COMMANDS[name].run(chat, argument.strip())


class CommandCompleter(Completer):
    """Completes the command's name, then its argument (a path, or one of a few words)."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield completions for a line that starts with a slash; none for a message."""
        text = document.text_before_cursor
        if not text.startswith("/"):
            return
        name, space, argument = text.partition(" ")
        if not space:
            meta = {name: command.help for name, command in COMMANDS.items()}
            words = WordCompleter(list(COMMANDS), meta_dict=meta, sentence=True)
            yield from words.get_completions(document, complete_event)
        elif name in COMMANDS and (completer := COMMANDS[name].completer):
            yield from completer.get_completions(Document(argument), complete_event)


def _image(chat: Chat, path: str) -> str:
    _need(path, "/image PATH")
    chat.session.attach(open_image(path))
    count = len(chat.session.attached)
    return f"attached; the next message carries {count} picture{'s' * (count > 1)}"


def _generate(chat: Chat, prompt: str) -> Reply:
    return chat.session.generate(_need(prompt, "/generate PROMPT"))


def _edit(chat: Chat, instruction: str) -> Reply:
    return chat.session.edit(_need(instruction, "/edit INSTRUCTION"))


def _seed(chat: Chat, text: str) -> str:
    settings = chat.session.settings
    if text:
        settings.seed = None if text == "random" else _number(text, int, 0, "a whole number, or random")
    last = chat.session.last_seed
    told = "a fresh one for each reply" if settings.seed is None else str(settings.seed)
    return f"seed: {told}" + (f" (the last reply had {last})" if last is not None else "")


def _steps(chat: Chat, text: str) -> str:
    settings = chat.session.settings
    if text:
        settings.steps = _number(text, int, 1, "a whole number from 1 up")
    return f"steps: {_told(settings.steps)}"


def _guidance(chat: Chat, text: str) -> str:
    settings = chat.session.settings
    if text:
        expected = "one or two numbers from 0 up: text guidance, then image guidance"
        numbers = [_number(part, float, 0, expected) for part in text.split()]
        if len(numbers) > 2:
            raise UserError(f"/guidance got {len(numbers)} numbers; it takes {expected}")
        settings.guidance = numbers[0]
        settings.image_guidance = numbers[1] if len(numbers) == 2 else settings.image_guidance
    return f"guidance: text {_told(settings.guidance)}, image {_told(settings.image_guidance)}"


def _temperature(chat: Chat, text: str) -> str:
    settings = chat.session.settings
    if text:
        settings.temperature = _number(text, float, 0, "a number from 0 (always the likeliest word) up")
    return f"temperature: {_told(settings.temperature)}"


def _new(chat: Chat, text: str) -> str:
    chat.session.new()
    return "a new conversation; the settings stay"


def _save(chat: Chat, path: str) -> str:
    pictures = chat.session.save(_need(path, "/save FILE.jsonl"))
    return f"added one row to {path}, with {len(pictures)} picture{'s' * (len(pictures) != 1)} beside it"


def _load(chat: Chat, name: str) -> str:
    return chat.load(_need(name, "/load MODEL"))


def _adapter(chat: Chat, name: str) -> str:
    model = chat.model
    if name == "off":
        model.set_adapter(None)
    elif name:
        model.set_adapter(name if name in model.adapters else model.add_adapter(name))
    others = [other for other in model.adapters if other != model.adapter]
    return f"adapter: {model.adapter or 'off'}" + (f" (also at hand: {', '.join(others)})" if others else "")


def _path(chat: Chat, text: str) -> str:
    config = chat.model.config
    if getattr(config, "model_type", None) == "external":
        made = (
            f"images are made outside the language model, by the denoiser {config.denoiser.kind}, from what "
            f"{config.reader.name} reads, through the connector {config.connector.kind}"
        )
        return f"{made}; pictures are saved in {chat.save_dir}"
    options = ", ".join(f"{name} {value}" for name, value in getattr(config, "path_options", {}).items())
    made = f"images are made by the {config.path} path" + (f" ({options})" if options else "")
    masked = getattr(config, "text_objective", "next_token") == "masked"
    written = ", words by masked prediction" if masked else ""
    return f"{made}{written}; pictures are saved in {chat.save_dir}"


def _help(chat: Chat, text: str) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, command in COMMANDS.items():
        # Texts, not markup: what commands say is printed as it stands.
        table.add_row(Text.assemble((name, "bold"), " ", command.argument), command.help)
    table.add_row("Ctrl-C, Ctrl-D", "stop the reply or clear the line; leave")
    return table


def _quit(chat: Chat, text: str) -> None:
    raise EOFError


def _need(text: str, usage: str) -> str:
    if not text:
        raise UserError(f"{usage.split()[0]} needs something behind it: {usage}")
    return text


def _number(text: str, kind: type, least: float, expected: str) -> int | float:
    try:
        number = kind(text)
    except ValueError:
        raise UserError(f"{text!r} is not {expected}") from None
    if not least <= number < float("inf"):
        raise UserError(f"{text} is out of range; expected {expected}")
    return number


def _told(value: float | None) -> str:
    return "the model's own" if value is None else f"{value:g}"


FILES = PathCompleter(expanduser=True)
FOLDERS = PathCompleter(only_directories=True, expanduser=True)
SEEDS = WordCompleter(["random"])
ADAPTERS = merge_completers([WordCompleter(["off"]), FOLDERS])

COMMANDS = {
    "/image": Command("PATH", "attach a picture to the next message; may be repeated", _image, FILES),
    "/generate": Command("PROMPT", "draw this, whatever the model would rather do", _generate),
    "/edit": Command("INSTRUCTION", "change the attached picture, or else the last one", _edit),
    "/retry": Command("", "take the last reply back and ask again", lambda chat, _: chat.session.retry()),
    "/undo": Command("", "take back the last message and its reply", lambda chat, _: chat.session.undo()),
    "/new": Command("", "forget the conversation", _new),
    "/seed": Command("[N|random]", "fix the seed, or draw a fresh one for each reply", _seed, SEEDS),
    "/steps": Command("[N]", "steps or forwards of a picture", _steps),
    "/guidance": Command("[TEXT [IMAGE]]", "how closely to follow words and edited picture", _guidance),
    "/temperature": Command("[T]", "how freely words are chosen; 0 is the likeliest", _temperature),
    "/save": Command("FILE", "append the conversation as a training row (JSONL)", _save, FILES),
    "/load": Command("MODEL", "go on with another model", _load, FOLDERS),
    "/adapter": Command("[NAME|FOLDER|off]", "change the model by an adapter, or not", _adapter, ADAPTERS),
    "/path": Command("", "how images are made and where pictures are saved", _path),
    "/help": Command("", "this list", _help),
    "/quit": Command("", "leave", _quit),
}  # fmt: skip
