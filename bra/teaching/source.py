"""The line of code that each step of the worked example runs, read from the code, where a comment marks it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bra import functional as BF
from bra.attention import BiLevelRoutingAttention
from bra.errors import BRAError
from bra.messages import message

STEPS: Final = ("tokens", "windows", "means", "affinity", "topk", "gather", "scores", "softmax", "output", "lepe",
                "projection")
"""The steps in the order in which they happen."""
PACKAGE: Final = Path(__file__).parents[1]

FUNCTIONS: Final = (BiLevelRoutingAttention.forward, BiLevelRoutingAttention._route, BiLevelRoutingAttention._lepe,
                    BF.partition, BF.pool, BF.affinity, BF.route, BF.gather, BF.attention_rows, BF.attend_explicit)
"""Where the steps run. In their code the line of each step ends with the comment `# step: NAME`."""
MARK: Final = "# step: "


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One line of the package's code.

    Attributes:
        file: from the package's parent folder, such as "bra/functional.py".
        number: of the line in its file, from 1.
        text: the line without its indent and its comment.
        function: name of the function that it stands in.
        body: that function's whole text.
    """

    file: str
    number: int
    text: str
    function: str
    body: str


def lines_of(step: str) -> tuple[SourceLine, ...]:
    """The lines that a step runs, as they stand in the code now.

    Raises:
        BRAError: no such step.
    """
    if step not in STEPS:
        raise BRAError(message("there is no step {step}: choose one of {steps}.", step=repr(step),
                               steps=", ".join(STEPS)))
    return tuple(line for function in FUNCTIONS for line in _marked(function, step))


def _marked(function: Callable[..., Any], step: str) -> Iterator[SourceLine]:
    lines, first = inspect.getsourcelines(function)
    code = [line.partition(MARK)[0].rstrip() for line in lines]
    for at, line in enumerate(lines):
        if line.partition(MARK)[2].strip() == step:
            file = Path(inspect.getsourcefile(function) or "").resolve().relative_to(PACKAGE.parent).as_posix()
            yield SourceLine(file, first + at, code[at].strip(), function.__name__,
                             inspect.cleandoc("\n" + "\n".join(code)))
