"""Which databases each pair of Python and Django is tested on."""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[str, str]

ALL = ["sqlite", "postgresql", "mysql"]
#: Each pair and each database once: the rest differs too little to be worth half an hour each time.
SAMPLE = {
    ("3.11", "5.2"): ["sqlite"],
    ("3.12", "6.0"): ["mysql"],
    ("3.13", "6.1"): ["postgresql"],
    ("3.14", "6.1"): ["sqlite"],
}


def databases(
    pairs: Sequence[Pair], *, of_readme: str | None, full: bool = False
) -> dict[Pair, list[str]]:
    """
    Return what each of *pairs* is tested on; the first of them takes what no other has.

    SQLite is not tested again with the Python of the README's command, *of_readme* ("3.11";
    None where it did not run), nor for its own sake.
    """
    if full:
        plan = {pair: list(ALL) for pair in pairs}
    else:
        plan = {pair: list(SAMPLE[pair]) for pair in pairs}
        tested = {scheme for schemes in plan.values() for scheme in schemes}
        tested |= {"sqlite"} if of_readme else set()
        plan[pairs[0]] += [scheme for scheme in ALL if scheme not in tested]
    return {
        pair: [scheme for scheme in schemes if (pair[0], scheme) != (of_readme, "sqlite")]
        for pair, schemes in plan.items()
    }


def versions_for_all(pairs: Sequence[Pair], of_readme: str | None) -> set[str]:
    """
    Return the Pythons of *pairs* that run what touches no database, too: the main one, and the oldest.

    For what lies between them the suite with a database does, which forks in every way.
    """
    oldest = min((pair[0] for pair in pairs), key=lambda version: int(version.partition(".")[2]))
    return {pairs[0][0]} | {oldest} - {of_readme}
