"""The built-in pictures: key, name, and where to look first, in ten-thousandths of width and height."""

from __future__ import annotations

from dataclasses import dataclass

from bra.viewer.pack import Place


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of sample_images/, without the ending.

    Attributes:
        name: for people.
        focus: a place worth asking about.
        about: what to look for.
    """

    name: str
    focus: Place
    about: str


GALLERY = {
    "animal": Sample("Cat", (3850, 3700), "Point at one eye: does it find the other?"),
    "portrait": Sample("Portrait", (4400, 2400), "Suit with suit, backdrop with backdrop: large plain regions."),
    "still_life": Sample("Coffee", (4800, 3700), "The saucer's rim, the wood's grain, the crema."),
    "repeated_objects": Sample("Buttons", (2100, 6900), "Point at a red button: is it routed to red buttons?"),
    "smear": Sample("Smear", (3190, 6420), "Point at a cell: is it routed to its kind, or to its neighbours?"),
    "street": Sample("Street", (3930, 4920), "Point at a car: does it find cars, or the asphalt they stand on?"),
    "text": Sample("Page", (4000, 2600), "Paper with paper, print with print; lines are cut by the grid."),
    "tissue": Sample("Retina", (1800, 4600), "Vessels cross many windows; the black corners are one class."),
    "tiny_objects": Sample("Galaxies", (7260, 5430), "Objects smaller than a window drown in its mean."),
    "texture": Sample("Grass", (3800, 3300), "Negative control: everywhere alike, so a clear pattern is an artefact."),
}
