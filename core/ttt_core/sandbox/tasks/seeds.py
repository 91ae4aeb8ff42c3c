"""Random streams by name, so that every part of an example has its own.

A needle drawn from its own stream stays as it is while the haystack around it grows, and the two
splits share no stream, so they share no document.
"""

import hashlib
import random

from ttt_core.examples import Split


def stream(task: str, split: Split, seed: int, index: int, purpose: str) -> random.Random:
    """Return the random stream of one part of one example.

    Args:
        task: The task's name.
        split: The streams of `tune` and `score` have nothing in common.
        seed: The seed of the run.
        index: Which example of the seed.
        purpose: Which part, such as `needle` or `haystack`. Leave the length out of what must
            stay while the document grows.
    """
    # Each part with its length in front: ("a", "b|c") and ("a|b", "c") must not meet.
    parts = (task, split, str(seed), str(index), purpose)
    named = "".join(f"{len(part)}:{part}" for part in parts)
    return random.Random(hashlib.sha256(named.encode("utf-8")).digest())
