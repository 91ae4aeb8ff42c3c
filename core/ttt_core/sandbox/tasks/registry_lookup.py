"""The registry of the bundled model as a task: `amber falcon: Oslo`, where is the amber falcon?"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ttt_core.sandbox.registry import make_registry, max_lines
from ttt_core.sandbox.tasks.lookup import LookupTask, Record
from ttt_core.sandbox.words import places


class RegistryLookup(LookupTask):
    """Records with keys drawn uniformly; 64 lines are what the bundled model was trained on."""

    name = "registry"
    description = "Where is it, going by a registry of one record a line?"

    @property
    def _most(self) -> int:
        return max_lines()

    def _records(self, rng: Random) -> Sequence[Record]:
        return make_registry(max_lines(), seed=rng.getrandbits(63), questions=0).records

    def _chance(self, record: Record) -> float:
        return 1 / len(places())
