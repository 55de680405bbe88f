"""Model files with rows that nobody here knows: what can still be checked and counted, and what hangs on a guess.

An unknown row is taken as keeping its channels and the size of its map; one that begins with a whole number of
channels, as Ultralytics' own blocks do, as returning so many. Nothing of it is counted, and every row that reads it,
at whatever distance, depends on the guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import yaml
from ultralytics.nn import tasks

from bra.messages import message
from bra.profiling.model_cost import Cost
from bra.yolo.blocks import canonical
from bra.yolo.edit import read_yaml
from bra.yolo.rows import Row, rows_of, with_rows

LEAST_CHANNELS: Final = 16
"""A first argument below this is a size or a count; no block of a YOLO model returns fewer channels."""


@dataclass(frozen=True, slots=True)
class Guesses:
    """A model file with its unknown rows replaced by stand-ins, whose effects are guessed.

    Attributes:
        model: its content, a stand-in in each unknown row.
        rows: the unknown rows.
        depending: for every row, the numbers of the unknown rows that it reads, directly or through others.
    """

    model: Mapping[str, Any]
    rows: tuple[Row, ...]
    depending: Mapping[int, tuple[int, ...]]

    def marked(self, index: int, text: str) -> str:
        """A sentence about a row, saying so where it hangs on a guess."""
        numbers = self.depending.get(index, ())
        if not numbers:
            return text
        names = ", ".join(f"{row.index} {row.name}" for row in self.rows if row.index in numbers)
        return message("{text} (This depends on a guess: that {rows} keep their channels and the size of their map.)",
                       text=text, rows=names)

    def named(self, cost: Cost) -> Cost:
        """A cost of the stand-ins' model, its rows saying which are not known and which depend on a guess."""
        unknown = {row.index: row.name for row in self.rows}
        made = []
        for row in cost.rows:
            number = row.name.split(" ")[0]
            at = int(number) if number.isdecimal() else -1
            if at in unknown:
                name = message("{number} {name} (not known, not counted)", number=at, name=unknown[at])
                row = replace(row, name=name, params=0, macs=0, executed_macs=0)
            elif at in self.depending:
                row = replace(row, name=message("{name} (by a guess)", name=row.name))
            made.append(row)
        macs = sum(row.macs for row in made)
        total = replace(cost.total, params=sum(row.params for row in made), macs=macs,
                        executed_macs=sum(row.executed_macs for row in made))
        rows = tuple(replace(row, share=row.macs / macs if macs else 0.0) for row in made)
        return replace(cost, rows=rows, total=total)

    @property
    def sentence(self) -> str:
        """Which rows are not known, and what is taken for them; "" where there are none."""
        if not self.rows:
            return ""
        return message("{rows} are rows whose layers Ultralytics does not have: each is taken as keeping its map's "
                       "size and channels, or as returning the channels that its row begins with, and nothing of it "
                       "is counted.", rows=", ".join(f"{row.index} {row.name}" for row in self.rows))


def is_known(name: str) -> bool:
    """Whether Ultralytics' parser finds a layer of that name, ours and a person's own among them."""
    return name.startswith(("nn.", "torchvision.ops.")) or isinstance(getattr(tasks, name, None), type)


def guessed(model: Mapping[str, Any]) -> Guesses:
    """The file with stand-ins in place of unknown rows.

    Raises:
        YoloError: this is no model.
    """
    rows = rows_of(canonical(model))
    unknown = tuple(row for row in rows if not is_known(row.name))
    replaced = [_stand_in(row) if row in unknown else row for row in rows]
    return Guesses(with_rows(model, replaced), unknown, _depending(rows, {row.index for row in unknown}))


def _stand_in(row: Row) -> Row:
    if isinstance(row.source, list) and len(row.source) > 1:
        return Row(row.index, row.source, 1, "Concat", [1])
    source = row.source[0] if isinstance(row.source, list) and row.source else row.source
    first = row.args[0] if row.args else None
    if type(first) is int and first >= LEAST_CHANNELS:
        return Row(row.index, source, 1, "Conv", [first, 1, 1])
    return Row(row.index, source, 1, "nn.Identity", [])


def _depending(rows: Sequence[Row], unknown: set[int]) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {}
    for row in rows:
        above = {number for at in row.sources if at in found or at in unknown
                 for number in (*found.get(at, ()), *([at] if at in unknown else ()))}
        if above:
            found[row.index] = tuple(sorted(above))
    return found


def guessed_text(text: str) -> tuple[Guesses, bytes]:
    """The same of a file's text, and the text with the stand-ins.

    Raises:
        YoloError: this is no model.
    """
    guesses = guessed(read_yaml(text))
    return guesses, yaml.safe_dump(dict(guesses.model), sort_keys=False, allow_unicode=True).encode()
