"""`unimodal generate`, `edit`, `ask`, `complete`: one request each, and out."""

from typing import Annotated

import typer

from unimodal.commands.options import (
    PICTURES,
    Adapter,
    Device,
    Dtype,
    Guidance,
    Model,
    N,
    Out,
    Seed,
    Size,
    Steps,
    Temperature,
    Tokens,
    load,
)


def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...")],
    model: Model = None,
    adapter: Adapter = None,
    device: Device = None,
    dtype: Dtype = None,
    n: N = 1,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    size: Size = None,
    out: Out = PICTURES,
) -> None:
    """Draw pictures of what the prompts say."""
    from unimodal.commands.pictures import show_all

    loaded = load(model, adapter, device, dtype)
    show_all(loaded.generate(prompts, n=n, seed=seed, steps=steps, guidance=guidance, size=size), out)


def edit(
    image: Annotated[str, typer.Argument(help="Picture file.", metavar="IMAGE")],
    instruction: str,
    model: Model = None,
    adapter: Adapter = None,
    device: Device = None,
    dtype: Dtype = None,
    n: N = 1,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    image_guidance: Annotated[
        float | None, typer.Option(min=0, help="How closely to keep to the picture.")
    ] = None,
    size: Size = None,
    out: Out = PICTURES,
) -> None:
    """Change a picture as told."""
    from unimodal.chat.pictures import open_image

    picture = open_image(image)
    from unimodal.commands.pictures import show_all

    options = {"steps": steps, "guidance": guidance, "image_guidance": image_guidance, "size": size}
    show_all(load(model, adapter, device, dtype).edit(picture, instruction, n=n, seed=seed, **options), out)


def ask(
    image: Annotated[str, typer.Argument(help="Picture file.", metavar="IMAGE")],
    question: str,
    model: Model = None,
    adapter: Adapter = None,
    device: Device = None,
    dtype: Dtype = None,
    max_tokens: Tokens = 128,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
) -> None:
    """Answer a question about a picture."""
    from unimodal.chat.pictures import open_image

    picture = open_image(image)
    loaded = load(model, adapter, device, dtype)
    typer.echo(loaded.answer(picture, question, max_tokens=max_tokens, temperature=temperature, seed=seed))


def complete(
    text: str,
    model: Model = None,
    adapter: Adapter = None,
    device: Device = None,
    dtype: Dtype = None,
    max_tokens: Tokens = 128,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
) -> None:
    """Go on with a text."""
    loaded = load(model, adapter, device, dtype)
    typer.echo(loaded.complete(text, max_tokens=max_tokens, temperature=temperature, seed=seed))
