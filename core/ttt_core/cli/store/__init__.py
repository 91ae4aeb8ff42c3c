"""`ttt store`: what is kept of documents, and what to do with it.

summary.py    `ttt store` alone         path.py      the folder
ls.py         a table of adapters       show.py      one of them
rm.py         remove what is named      prune.py     remove what is too much
verify.py     read everything           exchange.py  to PEFT's format, and back
entries.py    what the others share

Only export and import load torch.
"""

from __future__ import annotations

import typer

from ttt_core.cli.store.exchange import export, import_
from ttt_core.cli.store.ls import ls
from ttt_core.cli.store.path import path
from ttt_core.cli.store.prune import prune
from ttt_core.cli.store.rm import rm
from ttt_core.cli.store.show import show
from ttt_core.cli.store.summary import summary
from ttt_core.cli.store.upload import upload
from ttt_core.cli.store.verify import verify

app = typer.Typer(help="Show what is kept of documents, and look after it.")

app.callback(invoke_without_command=True)(summary)
app.command("ls")(ls)
app.command("show")(show)
app.command("rm")(rm)
app.command("prune")(prune)
app.command("verify")(verify)
app.command("export")(export)
app.command("import")(import_)
app.command("upload")(upload)
app.command("path")(path)
