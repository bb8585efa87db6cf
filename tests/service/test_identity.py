"""Names of things tell nothing of others."""

import random

from api.identity import new_id

WORDS, MASK = 624, 0xFFFFFFFF


def untempered(word: int) -> int:
    """State of a Mersenne Twister behind a number that it gave (Matsumoto and Nishimura 1998, steps backwards)."""
    word ^= word >> 18
    word ^= word << 15 & 0xEFC60000
    seen = word
    for _ in range(4):
        word = seen ^ (word << 7 & 0x9D2C5680)
    seen = word
    for _ in range(2):
        word = seen ^ word >> 11
    return word


def test_names_that_are_seen_do_not_tell_the_next_one():
    def predicted(name) -> tuple[int, int]:
        """What a Mersenne Twister whose numbers are the last 208 ones would give next, and what comes."""
        numbers = [name() for _ in range(WORDS // 3)]
        words = [number >> 32 * place & MASK for number in numbers for place in range(3)]
        twister = random.Random()
        twister.setstate((3, (*map(untempered, words), WORDS), None))
        return twister.getrandbits(96), name()

    weak = random.Random(1)
    assert len(set(predicted(lambda: weak.getrandbits(96)))) == 1, "the attack must work where it can"
    assert len(set(predicted(lambda: int(new_id("x").removeprefix("x_"), 16)))) == 2
