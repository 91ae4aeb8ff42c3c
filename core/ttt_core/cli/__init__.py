"""The command `ttt`: ask, adapt, store, demo.

arguments ─ inputs.py ─▶ documents, questions ─ work.py ─▶ engine ─ ask, adapt, demo ─▶ answers

Answers and reports (report.py) go to stdout; bars, notes and errors (console.py) to stderr.
`failures.py` turns errors into one line and an exit code. Needs the extra `context-ttt[cli]`;
torch is imported only when a model is needed.
"""
