"""How pages look: system fonts, the reader's choice of light or dark, black on white on paper."""

STYLE = """\
:root { color-scheme: light dark; --ink: #1c1f23; --paper: #ffffff; --soft: #5d6670;
  --line: #d5dade; --tint: #f3f5f7; --mark: #2a7fd4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --paper: #16191d; --soft: #9aa4ae;
  --line: #373e45; --tint: #20252a; --mark: #63a9ee; } }
@media print { :root { --ink: #000000; --paper: #ffffff; --soft: #444444; --line: #bbbbbb;
  --tint: #ffffff; --mark: #000000; } figure, table, pre { break-inside: avoid; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 78rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1, h2, h3, h4 { line-height: 1.25; margin: 2rem 0 .6rem; overflow-wrap: anywhere; }
h1 { margin-top: 0; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
p.strong { max-width: none; border-left: .3rem solid var(--mark); background: var(--tint);
  padding: .8rem 1rem; font-weight: 600; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
th, td { text-align: left; padding: .25rem .7rem; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { border-bottom-width: 2px; }
.r { text-align: right; white-space: nowrap; }
figure { margin: 1.25rem 0; }
figure svg { max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 46rem; }
pre { background: var(--tint); padding: .7rem 1rem; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: .85rem; }
details { margin: 1rem 0; border: 1px solid var(--line); border-radius: .4rem;
  padding: .5rem 1rem; }
summary { cursor: pointer; font-weight: 600; }
"""
