"""Few cases out of many, such that any two values that can meet do meet."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product


def possible(factors: Mapping[str, Sequence[object]]) -> Iterator[dict[str, object]]:
    """Every combination of one value per factor."""
    for values in product(*factors.values()):
        yield dict(zip(factors, values, strict=True))


def covering(cases: Sequence[Mapping[str, object]], times: int = 1) -> list[Mapping[str, object]]:
    """Cases that hold every pair of values, `times` times over as long as there are other cases that do.

    Greedy: the case with most pairs that are still wanted, the first of equals. The same cases give the same choice.
    """
    number: dict[tuple[object, ...], int] = {}
    pairs = [sum(1 << number.setdefault(pair, len(number)) for pair in combinations(case.items(), 2)) for case in cases]
    left = dict(enumerate(pairs))
    chosen: list[int] = []
    for _ in range(times):
        wanted = (1 << len(number)) - 1
        while True:
            best = max(left, key=lambda index: ((left[index] & wanted).bit_count(), -index))
            if not left[best] & wanted:
                break
            wanted &= ~left.pop(best)
            chosen.append(best)
    return [cases[index] for index in chosen]
