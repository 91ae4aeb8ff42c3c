"""Controlled tasks by name: generated documents in which the answer's place is known.

Each has a haystack that grows with the length while the needle stays. Light to import: a task's
module is loaded when the task is first asked for, and none of them needs torch.
"""

from __future__ import annotations

from importlib import import_module

from ttt_core.examples import Task

_TASKS = {
    "bugs": ("bugs", "BugLocalization"),
    "ledger": ("ledger", "Ledger"),
    "many-shot": ("made_up_labels", "MadeUpLabels"),
    "multi-key": ("retrieval", "MultiKey"),
    "multi-query": ("retrieval", "MultiQuery"),
    "multi-value": ("retrieval", "MultiValue"),
    "registry": ("registry_lookup", "RegistryLookup"),
    "transactions": ("transactions", "Transactions"),
    "variable-tracking": ("tracking", "VariableTracking"),
}
"""Module and class of each task."""


def task_names() -> tuple[str, ...]:
    """Return the names that `get_task` knows, in alphabetical order."""
    return tuple(_TASKS)


def get_task(name: str) -> Task:
    """Return the task called `name`, with its usual settings.

    Raises:
        ConfigError: There is no such task.
    """
    if name not in _TASKS:
        from ttt_core.config import unknown_name
        from ttt_core.errors import ConfigError

        raise ConfigError(unknown_name("task", name, _TASKS, "tasks"))
    module, task = _TASKS[name]
    made = getattr(import_module(f"{__name__}.{module}"), task)()
    assert isinstance(made, Task)
    return made


__all__ = ["get_task", "task_names"]
