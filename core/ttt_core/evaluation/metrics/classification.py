"""The right class, and no other."""

from __future__ import annotations

from collections.abc import Sequence


def classification_score(answer: str, reference: str, classes: Sequence[str]) -> float:
    """Return 1 over the number of classes that the answer names, if the right one is among them.

    A class whose name is part of the right one's does not count against it. After
    `classification_score` of THUDM/LongBench, which drops such classes while it walks over them
    and so may skip one; among the classes of TREC and LSHT none is part of another, so it does not.
    Its branch for answers that name no class is never reached there, and they score 0 here too.
    """
    named = [one for one in classes if one in answer]
    rivals = [one for one in named if one == reference or one not in reference]
    return 1 / len(rivals) if reference in rivals else 0.0
