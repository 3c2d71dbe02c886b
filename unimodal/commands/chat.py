"""`unimodal chat`: a conversation in the terminal, through a pipe, or in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from unimodal.commands.options import DEFAULT, PICTURES, Adapter, Device, Dtype, load
from unimodal.errors import UserError


def chat(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A shipped model, a folder that `train` wrote, or a hub id.  "
            f"\\[default: the adapter's, or {DEFAULT}]"
        ),
    ] = None,
    adapter: Adapter = None,
    device: Device = None,
    dtype: Dtype = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="One message, one reply, and out.")
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option(help="Picture for the first message; may be repeated.")
    ] = None,
    save_dir: Annotated[Path, typer.Option(help="Folder for the pictures.")] = PICTURES,
    web: Annotated[
        bool, typer.Option("--web", help="Talk on a page in the browser (needs the extra `web`).")
    ] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the page.")] = 7860,
) -> None:
    """Talk with a model in words and pictures.  Lines from a pipe are messages too."""
    shown = " with ".join(part for part in (model, *(adapter or [])) if part) or DEFAULT

    def load_named(name: str):
        # The first model comes with its adapters; /load brings others, without.
        return load(*((model, adapter) if name == shown else (name, None)), device, dtype)

    if web:
        if prompt or image:
            raise UserError("--web opens a page to talk on; leave --prompt and --image out")
        from unimodal.chat.web import serve

        serve(shown, load_named, save_dir, port)
        return
    from unimodal.chat.repl import chat

    chat(shown, load_named, prompt, image or [], save_dir)
