"""What `ttt eval` does if nobody says what. Light: loads nothing."""

TASKS = ("registry",)
ARMS = ("in-context", "qttt", "bm25", "bm25-only", "lr-zero", "chance")
"""So cheap an arm as `bm25-only` should not be left out by accident."""

SEEDS, EXAMPLES = 5, 2
"""Ten documents: with six, and three arms to compare, nothing could be significant."""
