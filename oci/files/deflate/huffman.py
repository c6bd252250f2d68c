"""Huffman codes of deflate blocks (RFC 1951, 3.2), chosen exactly as Go's compress/flate chooses them.

Where several codes are optimal the choice shows in the bytes, so ties are part of the contract. Bits are handled as
text of `0` and `1` with the *first* bit of the stream at the *right* end: that is the binary number they are packed as.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

END_OF_BLOCK = 256
DISTANCES = 30

_LONGEST = 15
_LONGEST_OF_LENGTHS = 7
_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
_REPEAT_BITS = {16: 2, 17: 3, 18: 7}
_DYNAMIC = "100"


@dataclass(frozen=True, slots=True)
class Codebook:
    """The codes of one block: its header, a word for each symbol, and the size in bits that header and symbols take.

    The size leaves out the extra bits of copies.
    """

    header: str
    literals: Sequence[str]
    distances: Sequence[str]
    size: int


def codebook(literals: Mapping[int, int], distances: Mapping[int, int]) -> Codebook:
    """Codes for symbols by how often they occur; `literals` are bytes, END_OF_BLOCK and lengths of copies."""
    literal_lengths = code_lengths(literals, _LONGEST)
    # A block without copies still describes one distance, or its tree couldn't be written down.
    distance_lengths = code_lengths(distances or {0: 1}, _LONGEST)
    runs = list(_run_lengths([*literal_lengths, *distance_lengths]))
    frequencies = Counter(symbol for symbol, _ in runs)
    run_lengths = code_lengths(frequencies, _LONGEST_OF_LENGTHS)
    words = code_words(run_lengths)
    described = len(_ORDER)
    while described > 4 and not frequencies[_ORDER[described - 1]]:
        described -= 1
    run_lengths += [0] * len(_ORDER)
    parts = [
        _DYNAMIC,
        bits(len(literal_lengths) - 257, 5),
        bits(len(distance_lengths) - 1, 5),
        bits(described - 4, 4),
        *(bits(run_lengths[symbol], 3) for symbol in _ORDER[:described]),
    ]
    for symbol, repeat in runs:
        parts += words[symbol], bits(repeat, _REPEAT_BITS.get(symbol, 0))
    header = "".join(reversed(parts))
    size = len(header) + _weight(literals, literal_lengths) + _weight(distances or {0: 1}, distance_lengths)
    return Codebook(header, code_words(literal_lengths), code_words(distance_lengths), size)


def bits(value: int, count: int) -> str:
    return f"{value:0{count}b}" if count else ""


def code_lengths(frequencies: Mapping[int, int], longest: int) -> list[int]:
    """Returns the length of each symbol's code, up to the last symbol that occurs; 0 for one that doesn't occur."""
    leaves = sorted((count, symbol) for symbol, count in frequencies.items() if count)
    lengths = [0] * (max(symbol for _, symbol in leaves) + 1)
    if len(leaves) <= 2:
        for _, symbol in leaves:
            lengths[symbol] = 1
        return lengths
    of_length = _symbols_by_length([count for count, _ in leaves], min(longest, len(leaves) - 1))
    for length, count in enumerate(of_length, 1):
        for _ in range(count):
            lengths[leaves.pop()[1]] = length
    return lengths


def _symbols_by_length(leaves: Sequence[int], longest: int) -> list[int]:
    """How many symbols get a code of 1, 2, 3... bits, by package-merge; on a tie a package goes before a leaf."""
    levels: list[list[tuple[int, bool]]] = []
    packages: list[int] = []
    for _ in range(longest):
        level = sorted(
            [(weight, False) for weight in packages] + [(weight, True) for weight in leaves], key=lambda item: item[0]
        )
        levels.append(level)
        packages = [level[at][0] + level[at + 1][0] for at in range(0, len(level) - 1, 2)]
    count = 2 * len(leaves) - 2
    at_least = []
    for level in reversed(levels):
        chosen = sum(is_leaf for _, is_leaf in level[:count])
        at_least.append(chosen)
        count = 2 * (count - chosen)
    return [more - fewer for more, fewer in zip(at_least, [*at_least[1:], 0], strict=True)]


def code_words(lengths: Sequence[int]) -> list[str]:
    """Canonical codes: counted up by length, then by symbol."""
    words = [""] * len(lengths)
    code = 0
    for length in range(1, max(lengths) + 1):
        code <<= 1
        for symbol, code_length in enumerate(lengths):
            if code_length == length:
                words[symbol] = bits(code, length)[::-1]
                code += 1
    return words


def _run_lengths(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Code lengths as the header writes them: (length, 0), or (16, 17 or 18, how often beyond the least)."""
    for length, group in groupby(lengths):
        remaining = len(list(group))
        if length:
            yield length, 0
            remaining -= 1
            while remaining >= 3:
                count = min(remaining, 6)
                yield 16, count - 3
                remaining -= count
        else:
            while remaining >= 11:
                count = min(remaining, 138)
                yield 18, count - 11
                remaining -= count
            if remaining >= 3:
                yield 17, remaining - 3
                remaining = 0
        yield from [(length, 0)] * remaining


def _weight(frequencies: Mapping[int, int], lengths: Sequence[int]) -> int:
    return sum(count * lengths[symbol] for symbol, count in frequencies.items())
