"""The colours of the roles in every picture of a routing, drawn here or in a browser."""

from __future__ import annotations

from typing import Final

ROLES: Final = {"a": "#E69F00", "b": "#56B4E9", "rejected": "#8a8f98"}
"""Okabe and Ito's orange and sky blue, which every common form of colour blindness tells apart."""
