"""BiFormer small enough to learn on two cores: 1.6 M parameters at strides 4, 8, 16 and 32."""

from __future__ import annotations

from bra.models.biformer import FULL_ATTENTION, BiFormer

N_WIN = 5
"""A picture of 160 px has maps of 40, 20, 10 and 5 tokens a side, which 5 windows divide without padding."""


def biformer_nano(num_classes: int, drop_path_rate: float = 0.0) -> BiFormer:
    """A four-stage BiFormer of our own layout, with random weights; no published model has it."""
    return BiFormer((1, 1, 3, 1), (32, 64, 128, 256), n_win=N_WIN, topks=(1, 4, 8, FULL_ATTENTION),
                    num_classes=num_classes, drop_path_rate=drop_path_rate)
