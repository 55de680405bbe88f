"""The errors that a user meets: one sentence with the value, the allowed range and the cure."""

from typing import Final

from bra.messages import message

RECORD_IT: Final = message("Or record it where it runs: copy bra_record.py beside its code, run these two lines there, "
                           "and open run.bra here.")
"""What stands between a refusal and the lines of `ForeignModelError`."""


class BRAError(ValueError):
    """Any request that this package refuses."""


class SpecError(BRAError):
    """Settings of a layer that cannot be."""


class GridError(BRAError):
    """A token, window or pixel outside its map, or a map that does not fit its windows."""


class PhotoError(BRAError):
    """Bytes that are not a picture we read, or one that is too large."""


class TraceError(BRAError):
    """A model or an input that cannot be traced."""


class LayerNameError(TraceError, KeyError):
    """A layer's name that a model or a trace has not; a KeyError too, since names are looked up in mappings."""

    __str__ = Exception.__str__         # KeyError's own puts the sentence in quotes


class CheckpointError(BRAError):
    """Weights, in a file or a state dict, that are not what we read, are damaged, or ask for more than is given."""


class UnknownSettingsError(CheckpointError):
    """Weights whose settings have to be given: their file does not hold them, and no published model has them."""


class YoloError(BRAError):
    """A YOLO model file, checkpoint or installation that cannot be used as asked."""


class ForeignModelError(CheckpointError, YoloError):
    """A model whose layers are made by code that is not here: it cannot be opened, and can be recorded where it runs.

    Attributes:
        args: the sentence, and perhaps the lines to paste beside its own code.
    """

    @property
    def lines(self) -> str:
        """Two lines of Python that record it; "" where its file's name was not known when it was refused."""
        return str(self.args[1]) if len(self.args) > 1 else ""

    def __str__(self) -> str:
        """The sentence, with the lines below it."""
        return f"{self.args[0]} {RECORD_IT}\n{self.lines}" if self.lines else str(self.args[0])


class CostError(BRAError):
    """A model, or an input size, whose cost cannot be counted."""


LIBRARY: Final = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError, ArithmeticError,
                  MemoryError)
"""What torch and Ultralytics raise where a model's layers do not suit each other or their input. Not what a caller
raises to call work off."""


def brief(error: object, most: int = 120) -> str:
    """What another library says, for a sentence of ours: one line without control characters, cut at `most`."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(error)[:10 * most]).split())
    return line if len(line) <= most else f"{line[:most - 1]}…"
