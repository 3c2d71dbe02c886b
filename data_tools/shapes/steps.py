"""One exchange of a conversation as a value: what the user says, and what the assistant has to do about it.

A `Step` can be written into a row from the world's own scene, and judged on whatever scene the model's own
picture shows, so that a conversation is followed turn by turn.
"""

from dataclasses import dataclass

from data_tools.shapes.captions import Spec, follows, named
from data_tools.shapes.edits import Edit, edit_followed
from data_tools.shapes.language import everything
from data_tools.shapes.question import Question
from data_tools.shapes.questions import answer
from data_tools.shapes.reasons import COLON, reason, with_reason
from data_tools.shapes.scene import Scene


@dataclass(frozen=True, slots=True)
class Step:
    """An exchange: exactly one of `draw`, `edit`, `question` and `reply` says what is wanted.

    text    what the user says
    scene   what is talked about once the step is done, as the world has it; None if there is nothing yet
    given   the picture that the user shows together with the words
    told    the scene is told in words; there is no picture of it
    placed  it is known where things are: there is a picture, or the words say it
    lead    words of the assistant before its picture
    after   a question that the assistant answers about the picture it has just made
    """

    text: str
    scene: Scene | None = None
    draw: Spec | None = None
    edit: Edit | None = None
    question: Question | None = None
    reply: str = ""
    given: Scene | None = None
    told: bool = False
    placed: bool = True
    lead: str = ""
    after: Question | None = None

    @property
    def draws(self) -> bool:
        """Whether the assistant has to make a picture."""
        return self.draw is not None or self.edit is not None

    def words(self, scene: Scene | None) -> str:
        """The words that are right (after the picture, if one is made), given the scene talked about."""
        question = self.question or self.after
        if question is None:
            return self.reply
        return (scene and answer(question, scene)) or ""

    def before(self, scene: Scene, reasons: bool) -> str:
        """What the assistant says before its picture of the scene: of a caption's things, in its order."""
        order = (self.draw and named(self.draw, scene)) or ()
        return " ".join(filter(None, (self.lead, everything(scene, order) + COLON if reasons else "")))

    def reply_after(self, scene: Scene | None, reasons: bool) -> str:
        """`words`, with what they follow from if `reasons`."""
        question, words = self.question or self.after, self.words(scene)
        why = reason(question, scene, self.placed) if reasons and question and scene else None
        return with_reason(why, words)

    def drawn_right(self, before: Scene | None, got: Scene) -> bool:
        """Whether the picture made is the one asked for, given the picture before it."""
        if self.draw is not None:
            return follows(self.draw, got)
        return before is not None and edit_followed(self.edit, before, got)
