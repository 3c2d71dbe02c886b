"""The command line: a few lines a verb over a function that a notebook could call.

Nothing heavy is imported until a verb needs it, so that `--help` and completion answer at once.
"""

import errno
import sys

import typer

from unimodal.commands import chat, data, env, export, init, judge, recipes, train, use
from unimodal.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="One decoder transformer that reads and writes text and images: train, chat, judge.",
)
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")
VERBS = (
    init.init,
    export.export,
    train.train,
    use.generate,
    use.edit,
    use.ask,
    use.complete,
    chat.chat,
    judge.evaluate,
    judge.table,
    judge.compare,
    judge.bench,
    env.env,
)
for verb in VERBS:
    app.command("eval" if verb is judge.evaluate else None)(verb)


def main() -> None:
    """The console script.  A user's mistake is one red sentence and exit code 2, never a traceback."""
    try:
        app()
    except UserError as error:
        sentence = str(error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or "what was being written"
        sentence = f"The disk is full: {where} could not be finished. Make room, delete it, and begin again."
    else:
        return
    from rich.console import Console

    Console(stderr=True, highlight=False).print(sentence, style="red", markup=False, soft_wrap=True)
    sys.exit(2)
