"""A conversation with a loaded model, without a terminal in it.

The conversation is kept exactly as a row (`messages` with `<image>` marks, `images` in order), so what is
said here can be saved and trained on.  `Unimodal.stream` does the work; a notebook or a web page can use
this class as well as the REPL does.
"""

import json
import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image as PILImage

from unimodal.chat.pictures import save_picture
from unimodal.data.rows import MARK
from unimodal.errors import UserError

if TYPE_CHECKING:
    from unimodal.generation.verbs import Event

Reply = Generator["Event", None, None]


def content_of(parts: list[str | None]) -> str | list[dict[str, str]]:
    """Texts and pictures (None) as a message's content: a string with marks.

    Where the words themselves hold what looks like a mark, a list of parts, which says which is which.
    """
    runs: list[str | None] = []
    for part in parts:
        if part is not None and runs and runs[-1] is not None:
            runs[-1] += part
        else:
            runs.append(part)
    if not any(MARK in run for run in runs if run):
        return "".join(MARK if run is None else run for run in runs)
    return [{"type": "image"} if run is None else {"type": "text", "text": run} for run in runs]


@dataclass
class Settings:
    """How replies are sampled.  None leaves the choice to the model; a seed of None draws a fresh one."""

    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    image_guidance: float | None = None
    temperature: float | None = None
    max_tokens: int = 256


@dataclass(frozen=True, eq=False)
class _Turn:
    """A message with its reply: where it starts in the conversation, and how to ask it again."""

    message: int
    image: int
    content: str
    ask: Callable[[], Reply]


@dataclass
class Session:
    """Messages and pictures so far, the pictures attached to the next message, and the settings."""

    model: Any
    settings: Settings = field(default_factory=Settings)
    messages: list[dict[str, Any]] = field(default_factory=list)
    images: list[PILImage.Image] = field(default_factory=list)
    attached: list[PILImage.Image] = field(default_factory=list)
    last_seed: int | None = None
    _turns: list["_Turn"] = field(default_factory=list)
    _last: "_Turn | None" = None

    def attach(self, image: PILImage.Image) -> None:
        """Let the next message carry this picture."""
        self.attached.append(image)

    def say(self, text: str) -> Reply:
        """Send a message (with what is attached) and stream the reply; the model decides to write or draw.

        Pictures stand before the text unless the text holds one `<image>` mark for each of them.
        Stopping the iteration early keeps what was finished; if nothing was, the message is taken back.
        Raises UserError if marks and attached pictures differ in number, or the message is empty.
        """
        content = self._with_marks(text)

        def reply() -> Iterator["Event"]:
            s = self.settings
            return self.model.stream(
                list(self.messages),
                list(self.images),
                max_tokens=s.max_tokens,
                temperature=s.temperature,
                seed=self.last_seed,
                steps=s.steps,
                guidance=s.guidance,
                image_guidance=s.image_guidance,
            )

        return self._turn(content, self._take_attached(), reply)

    def generate(self, prompt: str) -> Reply:
        """Draw `prompt`, whatever the model would rather do, and put it into the conversation."""
        if self.attached:
            raise UserError(
                "/generate draws from words alone; use /edit for the attached picture, or /undo it"
            )
        content = self._with_marks(prompt)

        def reply() -> Iterator["Event"]:
            from unimodal.generation.verbs import Picture

            s = self.settings
            options = {"n": 1, "seed": self.last_seed, "steps": s.steps, "guidance": s.guidance}
            yield Picture(self.model.generate(prompt, **options)[0])

        return self._turn(content, [], reply)

    def edit(self, instruction: str) -> Reply:
        """Change the attached picture, or else the last one of the conversation, as told."""
        if len(self.attached) > 1:
            raise UserError(
                f"/edit changes one picture, but {len(self.attached)} are attached; /undo takes one off"
            )
        if not self.attached and not self.images:
            raise UserError("there is no picture to edit yet; draw one, or attach one with /image PATH")
        image = (self.attached or self.images)[-1]
        content = self._with_marks(instruction)

        def reply() -> Iterator["Event"]:
            from unimodal.generation.verbs import Picture

            s = self.settings
            options = {"n": 1, "seed": self.last_seed, "steps": s.steps, "guidance": s.guidance}
            yield Picture(self.model.edit(image, instruction, image_guidance=s.image_guidance, **options)[0])

        return self._turn(content, self._take_attached(), reply)

    def retry(self) -> Reply:
        """Take the last reply back (if it came) and ask again, with the next seed if the seed is fixed."""
        if self._last is None:
            raise UserError("there is no reply to ask for again; say something first")
        if self.settings.seed is not None:
            self.settings.seed += 1
        self._take_back(self._last)
        return self._last.ask()

    def undo(self) -> str:
        """Take back what came last: an attached picture, or else a message with its reply.

        Returns a sentence that says what is gone.  Raises UserError if there is nothing.
        """
        if self.attached:
            self.attached.pop()
            return f"took the attached picture off ({len(self.attached)} left)"
        if not self._turns:
            raise UserError("there is nothing to take back; the conversation is empty")
        turn = self._turns[-1]
        self._take_back(turn)
        self._last = self._turns[-1] if self._turns else None
        return f"took back {turn.content.replace(MARK, '').strip()!r} and its reply"

    def new(self) -> None:
        """Forget the conversation; the settings stay."""
        self.messages, self.images, self.attached, self._turns, self._last = [], [], [], [], None

    def save(self, path: str | Path) -> list[Path]:
        """Append the conversation to a JSONL file as one training row, its pictures beside the file.

        Returns the paths of the pictures.  No picture is ever overwritten.  Raises UserError if the
        conversation is empty or the file cannot be written.
        """
        if not self.messages:
            raise UserError("there is nothing to save; the conversation is empty")
        path = Path(path).expanduser()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            pictures = [save_picture(image, path.parent, path.stem) for image in self.images]
            row = {"messages": self.messages, "images": [picture.name for picture in pictures]}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise UserError(f"cannot save the conversation to {path}: {error.strerror or error}") from error
        return pictures

    def _with_marks(self, text: str) -> str:
        """Put a mark for each attached picture in front, unless the text already has as many."""
        if not text.strip():
            raise UserError("the message is empty; write something to send")
        marks = text.count(MARK)
        if marks == 0:
            return MARK * len(self.attached) + text
        if marks != len(self.attached):
            raise UserError(
                f"the message has {marks} {MARK} marks but {len(self.attached)} pictures are attached; "
                "attach one for each mark with /image PATH, or leave the marks out"
            )
        return text

    def _take_attached(self) -> list[PILImage.Image]:
        taken, self.attached = self.attached, []
        return taken

    def _turn(
        self, content: str, images: list[PILImage.Image], reply: Callable[[], Iterator["Event"]]
    ) -> Reply:
        """One message and its reply: pass the events on, and record what was finished."""
        from unimodal.generation.verbs import Picture, Piece  # torch is there by now, as the model is

        seed = self.settings.seed
        self.last_seed = random.randrange(2**31) if seed is None else seed
        turn = _Turn(
            len(self.messages), len(self.images), content, lambda: self._turn(content, images, reply)
        )
        self._turns.append(turn)
        self._last = turn
        self.messages.append({"role": "user", "content": content})
        self.images.extend(images)
        parts: list[str | None] = []
        drawn: list[PILImage.Image] = []
        try:
            for event in reply():
                if isinstance(event, Piece):
                    parts.append(event.text)
                elif isinstance(event, Picture):
                    parts.append(None)
                    drawn.append(event.image)
                yield event
        finally:
            if drawn or "".join(parts).strip():
                self.messages.append({"role": "assistant", "content": content_of(parts)})
                self.images.extend(drawn)
            else:
                self._take_back(turn)

    def _take_back(self, turn: _Turn) -> None:
        """Cut the conversation off where the turn starts (nothing to cut if its reply never came)."""
        if turn in self._turns:
            del self._turns[self._turns.index(turn) :]
            del self.messages[turn.message :]
            del self.images[turn.image :]
