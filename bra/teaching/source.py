"""Which line of the code each step of the worked example runs, read from the code itself."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from bra import functional as BF
from bra.attention import BiLevelRoutingAttention
from bra.errors import BRAError
from bra.messages import message

STEPS: Final = ("tokens", "windows", "means", "affinity", "topk", "gather", "scores", "softmax", "output", "lepe",
                "projection")
"""The steps in the order in which they happen."""
PACKAGE: Final = Path(__file__).parents[1]

RUNS: Final[Mapping[str, tuple[tuple[Any, str], ...]]] = MappingProxyType({
    "tokens": ((BiLevelRoutingAttention.forward, "= self.qkv("),),
    "windows": ((BF.partition, "return"),),
    "means": ((BF.pool, "return x.mean"),),
    "affinity": ((BF.affinity, "q_win * scale"),),
    "topk": ((BF.route, "torch.topk"),),
    "gather": ((BF.gather, "index_select"),),
    "scores": ((BF.attention_rows, "q * scale"),),
    "softmax": ((BF.attention_rows, "softmax"),),
    "output": ((BF.attend_explicit, "@ values"),),
    "lepe": ((BiLevelRoutingAttention._lepe, "self.lepe(v"),),
    "projection": ((BiLevelRoutingAttention.forward, "self.wo(out"),),
})
"""For each step the functions, and a piece of their text that stands in one line."""


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
        BRAError: no such step, or its line was reworded; RUNS must then be too.
    """
    if step not in RUNS:
        raise BRAError(message("there is no step {step}: choose one of {steps}.", step=repr(step),
                               steps=", ".join(STEPS)))
    return tuple(_line(function, piece) for function, piece in RUNS[step])


def _line(function: Any, piece: str) -> SourceLine:
    lines, first = inspect.getsourcelines(function)
    code = [at for at, text in enumerate(lines) if piece in text and not text.lstrip().startswith(("#", '"""'))]
    if len(code) != 1:
        raise BRAError(message("{piece} stands in {n} lines of {name}, not in one: reword RUNS.", piece=repr(piece),
                               n=len(code), name=function.__qualname__))
    text, body = lines[code[0]].partition("  #")[0].strip(), inspect.cleandoc("\n" + "".join(lines))
    file = Path(inspect.getsourcefile(function) or "").resolve().relative_to(PACKAGE.parent).as_posix()
    return SourceLine(file, first + code[0], text, function.__name__, body)
