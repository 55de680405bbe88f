"""One layer's row of numbers under its path of 0.3; it lives in `bra.metrics.summary`."""

from bra.metrics.summary import LayerFidelity, report

__all__ = ["LayerFidelity", "report"]
