"""The built-in pictures: key, name, and where to look first, in ten-thousandths of width and height."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboard.i18n import tr_noop

if TYPE_CHECKING:       # it comes with torch
    from bra.viewer.pack import Place


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of sample_images/, without the ending.

    Attributes:
        name: for people, in English; shown by `translate`, as is what follows.
        focus: a place worth asking about.
        about: what to look for.
    """

    name: str
    focus: Place
    about: str


GALLERY = {
    "animal": Sample(tr_noop("Cat"), (3850, 3700), tr_noop("Point at one eye: does it find the other?")),
    "portrait": Sample(tr_noop("Portrait"), (4400, 2400),
                       tr_noop("Suit with suit, backdrop with backdrop: large plain regions.")),
    "still_life": Sample(tr_noop("Coffee"), (4800, 3700), tr_noop("The saucer's rim, the wood's grain, the crema.")),
    "repeated_objects": Sample(tr_noop("Buttons"), (2100, 6900),
                               tr_noop("Point at a red button: is it routed to red buttons?")),
    "smear": Sample(tr_noop("Smear"), (3190, 6420),
                    tr_noop("Point at a cell: is it routed to its kind, or to its neighbours?")),
    "street": Sample(tr_noop("Street"), (3930, 4920),
                     tr_noop("Point at a car: does it find cars, or the asphalt they stand on?")),
    "text": Sample(tr_noop("Page"), (4000, 2600), tr_noop("Paper with paper, print with print; lines are cut by the "
                                                          "grid.")),
    "tissue": Sample(tr_noop("Retina"), (1800, 4600),
                     tr_noop("Vessels cross many windows; the black corners are one class.")),
    "tiny_objects": Sample(tr_noop("Galaxies"), (7260, 5430), tr_noop("Objects smaller than a window drown in its "
                                                                      "mean.")),
    "texture": Sample(tr_noop("Grass"), (3800, 3300),
                      tr_noop("Negative control: everywhere alike, so a clear pattern is an artefact.")),
}
