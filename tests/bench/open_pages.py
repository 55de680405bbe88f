"""How much memory an open page of Explore takes beside the cache: visitors with a picture of their own each, who stay.

The cache is as small as it may be, so that what grows is what the pages themselves keep.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers"), str(ROOT / "tests" / "bench")]

from raw_visitor import Visitor, serving  # noqa: E402
from visitors import image_of, memory  # noqa: E402


def main() -> int:
    """Open the pages, and print the server's resident MB; 1 where a page had an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--query", default="", help="of the link that they open")
    parser.add_argument("--keep", type=int, default=16, help="ROUTESCOPE_KEEP_MB")
    chosen = parser.parse_args()
    people: list[Visitor] = []
    with tempfile.TemporaryDirectory() as folder, \
            serving(Path(folder) / "log.txt", {"ROUTESCOPE_KEEP_MB": str(chosen.keep)}) as (host, server):
        taken = []
        for number in range(chosen.pages):
            visitor = Visitor(host, chosen.query)
            people.append(visitor)
            visitor.run()
            assert visitor.upload("uploader", f"{number}.png", image_of(number)) == 204
            visitor.run()
            visitor.set_state("stage", "pins", {"a": [5000, 5000]})
            visitor.run(fragment=True)
            taken.append(memory(server.pid))
        # The first ones also fill the cache and what the server keeps once and for all.
        quarter = max(1, chosen.pages // 4)
        per_page = (taken[-1] - taken[quarter - 1]) / max(1, chosen.pages - quarter)
        print("resident MB after each page:", " ".join(f"{mb:.0f}" for mb in taken))
        print(f"{per_page:.1f} MB for each page from the {quarter + 1}. on")
        errors = [error for one in people for error in one.errors]
        print(f"errors: {len(errors)}", *errors[:10], sep="\n  ")
        for one in people:
            one.close()
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
