"""From cells to figures, and what those are worth.

pairing ─▶ statistics, power ─▶ comparing ─▶ summary (breakdown, costs) ─▶ verdict

`pairing` says which cells may be compared, `statistics` and `power` what a difference is worth,
`summary` puts everything into plain values, and `digits` writes them down.
"""
