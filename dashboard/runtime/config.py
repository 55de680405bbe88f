"""What one server gives to all its visitors: settings of the environment, checked before anyone comes.

`python -m dashboard.runtime.config` prints them and the app's address, or says in one sentence which of them cannot be.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from bra.errors import BRAError
from bra.messages import message
from dashboard.runtime.processors import processors

PREFIX: Final = "ROUTESCOPE_"
MODULES: Final = PREFIX + "MODULES"
"""Names a Python file of the visitor's own, whose classes rows of model files may name; it is run."""
HOME: Final = ("127.0.0.1", "localhost", "::1")


def _setting(default: int, least: int, most: int, about: str) -> Any:
    return field(default=default, metadata={"least": least, "most": most, "about": about})


@dataclass(frozen=True, slots=True)
class Limits:
    """Each setting is read from ROUTESCOPE_ and its name in capitals."""

    upload_mb: int = _setting(120, 1, 4096, "MB of a model file or a sweep's table")
    picture_mb: int = _setting(20, 1, 512, "MB of a picture's file")
    uploads_mb: int = _setting(2048, 1, 1_048_576, "MB of the files of all visitors together")
    megapixels: int = _setting(40, 1, 400, "million pixels of a picture, before it is reduced")
    keep_mb: int = _setting(768, 16, 1_048_576, "MB of models, pictures and results kept for the next to ask")
    seconds: int = _setting(120, 1, 86_400, "seconds that one piece of work may take; waiting does not count")
    queue: int = _setting(50, 1, 10_000, "pieces of work that may wait, in each of the lines")
    slots: int = _setting(0, 0, 256, "quick pieces of work at once; 0 for one per processor")
    heavy_slots: int = _setting(1, 1, 256, "slow pieces of work at once")

    @property
    def quick(self) -> int:
        """`slots`, spelled out."""
        return self.slots or processors()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], server_mb: int | None = None) -> Limits:
        """The settings that the environment asks for, the others at their defaults.

        Args:
            environment: names and values, as `os.environ`.
            server_mb: `server.maxUploadSize` of Streamlit, which ours must not contradict.

        Raises:
            BRAError: a value is no number or out of range, a name is unknown, or an upload that is allowed here would
                be refused by the server; one sentence with the cure.
        """
        known = {PREFIX + one.name.upper(): one for one in fields(cls)}
        found = {}
        for name, text in environment.items():
            if not name.startswith(PREFIX) or name == MODULES:
                continue
            if name not in known:
                raise BRAError(message("{name} is not a setting: choose one of {known}.", name=name,
                                       known=", ".join(known)))
            least, most = known[name].metadata["least"], known[name].metadata["most"]
            if not (text.isascii() and text.isdecimal() and len(text) < 9 and least <= int(text) <= most):
                raise BRAError(message("{name}={value} is not possible: give a whole number from {least} to {most}.",
                                       name=name, value=text[:40], least=least, most=most))
            found[known[name].name] = int(text)
        for name in ("upload_mb", "picture_mb") if server_mb is not None else ():
            found.setdefault(name, min(getattr(cls(), name), server_mb))
        made = cls(**found)
        for name in ("upload_mb", "picture_mb"):
            mb = getattr(made, name)
            if server_mb is not None and mb > server_mb:
                raise BRAError(message(
                    "{name}={mb} is more than the server takes: lower it to {server}, or start the server with "
                    "STREAMLIT_SERVER_MAX_UPLOAD_SIZE={mb}.", name=PREFIX + name.upper(), mb=mb, server=server_mb))
        if made.uploads_mb < made.upload_mb:
            raise BRAError(message("ROUTESCOPE_UPLOADS_MB={all} is less than one file may have "
                                   "(ROUTESCOPE_UPLOAD_MB={one}): raise the one or lower the other.",
                                   all=made.uploads_mb, one=made.upload_mb))
        return made

    def table(self) -> str:
        """Every setting with its value, a line each."""
        return "\n".join(f"{PREFIX + one.name.upper():24} {getattr(self, one.name):>8}  {one.metadata['about']}"
                         for one in fields(self))


def own_modules(environment: Mapping[str, str], address: str) -> str:
    """The file that MODULES names; "" for none.

    Args:
        environment: names and values, as `os.environ`.
        address: that the app listens on; "" for all.

    Raises:
        BRAError: others reach the app, and would have this computer run the file's classes.
    """
    modules = environment.get(MODULES, "")
    if modules and address not in HOME:
        raise BRAError(message("ROUTESCOPE_MODULES runs a file of yours, and the app listens on {address}, where "
                               "others reach it: set server.address to 127.0.0.1, or leave the variable out.",
                               address=address or "0.0.0.0"))
    return modules


def main() -> int:
    """Print the settings and the address of the app; the exit status."""
    from streamlit import config

    try:
        print(Limits.from_environment(os.environ, config.get_option("server.maxUploadSize")).table())
        modules = own_modules(os.environ, config.get_option("server.address") or "")
        if modules:
            print(f"{MODULES:24} {modules}  is run, and rows may name its classes")
        # Streamlit's own line with it goes with its welcome, which we switch off.
        print(f"http://{config.get_option('server.address') or 'localhost'}:{config.get_option('server.port')}")
    except BRAError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
