"""The chat as a page in the browser, on gradio: the sessions and saved pictures of the terminal's chat.

The page keeps the conversation and sends all of it with every message, so going back, asking again and
several visitors need nothing here; a reply is made by a session that begins where the page stands.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image as PILImage

from unimodal.chat.pictures import open_image, save_picture
from unimodal.chat.repl import TRY, introduce
from unimodal.chat.session import Session, Settings, content_of
from unimodal.errors import UserError

Message = dict[str, Any]  # {"role", "content"} as gradio's Chatbot has them


class Talk:
    """What the page asks for a reply.  One model for all visitors; pictures are saved in `folder`."""

    def __init__(self, model: Any, folder: Path):
        self.model, self.folder = model, folder

    def __call__(
        self,
        message: dict,
        history: list[Message],
        seed: float | None = None,
        steps: float | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
    ) -> Iterator[list[Message]]:
        """The reply so far, again and again, as it grows.

        message  {"text", "files"}, the new message
        seed, steps, guidance, temperature  see `Settings`; None leaves the choice to the model
        Raises UserError for an empty message or a file that is no picture.
        """
        seed, steps = (None if number is None else int(number) for number in (seed, steps))
        settings = Settings(seed, steps, guidance, temperature=temperature)
        session = Session(self.model, settings)
        session.messages, session.images = conversation(history)
        for path in message["files"]:
            session.attach(open_image(path))
        yield from self._shown(session.say(message["text"]))

    def _shown(self, reply: Iterator) -> Iterator[list[Message]]:
        from unimodal.generation.verbs import Drawing, Picture, Piece

        parts: list[Message] = []
        for event in reply:
            if isinstance(event, Piece):
                if not (parts and isinstance(parts[-1]["content"], str)):
                    parts.append({"role": "assistant", "content": ""})
                parts[-1]["content"] += event.text
            elif isinstance(event, Picture):
                path = save_picture(event.image, self.folder, "picture")
                parts.append({"role": "assistant", "content": {"path": str(path.resolve())}})
            if isinstance(event, Drawing):
                done = {"role": "assistant", "content": f"drawing: {event.step} of {event.steps}"}
                yield [*parts, done]
            else:
                yield [dict(part) for part in parts]


def conversation(history: list[Message]) -> tuple[list[Message], list[PILImage.Image]]:
    """What a page shows as messages with `<image>` marks and pictures, in order.

    A page has a message for every text and every picture; those of one side that follow each other are one.
    A content is a text, a file, or a list of them, plain or (as a browser sends them) with their type.
    """
    turns: list[tuple[str, list[str | None]]] = []
    images: list[PILImage.Image] = []
    for one in history:
        if not (turns and turns[-1][0] == one["role"]):
            turns.append((one["role"], []))
        for part in one["content"] if isinstance(one["content"], list) else [one["content"]]:
            if isinstance(part, str) or "text" in part:
                turns[-1][1].append(part if isinstance(part, str) else part["text"])
            else:
                images.append(open_image(part.get("file", part)["path"]))
                turns[-1][1].append(None)
    return [{"role": role, "content": content_of(parts)} for role, parts in turns], images


def page(model: Any, folder: Path) -> Any:
    """The page for a loaded model, a gradio ChatInterface that has not been launched."""
    import gradio

    talk = Talk(model, folder)

    def reply(*asked: Any) -> Iterator[list[Message]]:
        try:
            yield from talk(*asked)
        except UserError as error:
            raise gradio.Error(str(error), print_exception=False) from None

    number = gradio.Number
    return gradio.ChatInterface(
        reply,
        multimodal=True,
        title="unimodal",
        description=introduce(model),
        textbox=gradio.MultimodalTextbox(file_types=["image"], file_count="multiple", placeholder=TRY[0]),
        additional_inputs=[
            number(label="seed (empty: a new one each time)", value=None, precision=0),
            number(label="steps (empty: the model's)", value=None, precision=0, minimum=1),
            number(label="guidance (empty: the model's)", value=None),
            number(label="temperature (empty: the model's)", value=None, minimum=0),
        ],
        additional_inputs_accordion="Settings",
        examples=[[{"text": line}] for line in TRY],
        run_examples_on_click=False,
        cache_examples=False,
        flagging_mode="never",
        analytics_enabled=False,
        api_name="chat",
    )


def serve(name: str, load: Callable[[str], Any], folder: Path, port: int) -> None:
    """Load the model and answer at http://127.0.0.1:PORT until Ctrl-C.

    Raises UserError without gradio, for a model that cannot be read, and for a port that is taken.
    """
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise UserError(
            "the page needs gradio, which is not installed; in the clone, "
            "`pip install -c constraints.txt -e '.[web]'` brings it"
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    made = page(load(name), folder)
    try:
        made.launch(server_name="127.0.0.1", server_port=port, allowed_paths=[str(folder.resolve())])
    except OSError as error:
        raise UserError(f"no page at port {port}: {error}. Choose another with --port.") from error
