"""Evaluations: tasks and benchmarks x arms x lengths, and what the figures are worth.

plan, tuning ─▶ runner ─ bench ─▶ arms ─▶ records ─▶ results ─▶ summary ─▶ report

`records` is what is written down, `jsonlines` how; `benchmarks` are published data sets, and the
controlled tasks are in `ttt_core.sandbox.tasks`. `ttt eval` (`ttt_core.cli`) drives all of it.
"""
