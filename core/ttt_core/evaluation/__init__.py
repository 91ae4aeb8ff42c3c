"""Evaluations: tasks and benchmarks x arms x lengths, and what the figures are worth.

plan, tuning ─▶ runner ─ bench ─▶ arms ─▶ cells ─▶ results ─▶ analysis ─▶ report

`records` is what is written down, `jsonlines` how; `benchmarks` are published data sets, read by
`data` and scored by `metrics`; the controlled tasks are in `ttt_core.sandbox.tasks`. `ttt eval`
(`ttt_core.cli`) drives all of it.
"""
