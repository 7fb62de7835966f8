"""How large a lever's search is, and how the calls that are left are shared out among levers. Knows
numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Examples that a search answers. passes: over the rows that compare candidates; sets: of demos
    that a teacher answers rows for; once: others.
    """

    passes: int = 0
    sets: int = 0
    once: int = 0

    def examples(self, search: int, a_set: int) -> int:
        """search: rows that compare candidates; a_set: those that a teacher is asked for a set."""
        return self.passes * search + self.sets * a_set + self.once


@dataclass(frozen=True)
class Demand:
    """LM calls of a lever, those included that judge its program. useful: with fewer it is not
    begun; most: it can do nothing with more.
    """

    useful: int
    most: int


def share(demands: Sequence[Demand], left: int) -> int:
    """How many of the calls left the first of some levers may take; fewer than are useful to it
    where there are not so many.

    The levers have in turn what is useful to them, as long as there is that much: a few that are
    done are worth more than all of them begun. What is over is dealt out to these evenly, up to the
    most that each can use, so that the cheap ones have all of it.
    """
    first, paid, over = demands[0], list[Demand](), left
    if first.useful > left:
        return left
    for demand in demands:
        if demand.useful <= over:
            paid.append(demand)
            over -= demand.useful
    room = [demand.most - demand.useful for demand in paid]
    while full := [more for more in room if more * len(room) <= over]:
        if room[0] in full:
            return first.most
        over -= sum(full)
        room = [more for more in room if more not in full]
    return first.useful + over // len(room)
