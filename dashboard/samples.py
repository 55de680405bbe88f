"""The built-in pictures: key, name, and where to look first, in ten-thousandths of width and height."""

from __future__ import annotations

from dataclasses import dataclass

from bra.viewer.pack import Place
from dashboard.i18n import mark


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of sample_images/, without the ending.

    Attributes:
        name: for people, in English; shown by `told`, as is what follows.
        focus: a place worth asking about.
        about: what to look for.
    """

    name: str
    focus: Place
    about: str


GALLERY = {
    "animal": Sample(mark("Cat"), (3850, 3700), mark("Point at one eye: does it find the other?")),
    "portrait": Sample(mark("Portrait"), (4400, 2400),
                       mark("Suit with suit, backdrop with backdrop: large plain regions.")),
    "still_life": Sample(mark("Coffee"), (4800, 3700), mark("The saucer's rim, the wood's grain, the crema.")),
    "repeated_objects": Sample(mark("Buttons"), (2100, 6900),
                               mark("Point at a red button: is it routed to red buttons?")),
    "smear": Sample(mark("Smear"), (3190, 6420),
                    mark("Point at a cell: is it routed to its kind, or to its neighbours?")),
    "street": Sample(mark("Street"), (3930, 4920),
                     mark("Point at a car: does it find cars, or the asphalt they stand on?")),
    "text": Sample(mark("Page"), (4000, 2600), mark("Paper with paper, print with print; lines are cut by the grid.")),
    "tissue": Sample(mark("Retina"), (1800, 4600),
                     mark("Vessels cross many windows; the black corners are one class.")),
    "tiny_objects": Sample(mark("Galaxies"), (7260, 5430), mark("Objects smaller than a window drown in its mean.")),
    "texture": Sample(mark("Grass"), (3800, 3300),
                      mark("Negative control: everywhere alike, so a clear pattern is an artefact.")),
}
