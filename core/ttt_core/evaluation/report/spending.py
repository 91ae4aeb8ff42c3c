"""What it cost: FLOPs as counted and seconds as measured, by task, length and arm."""

from __future__ import annotations

from ttt_core.evaluation.analysis.costs import MANY, Costs
from ttt_core.evaluation.analysis.digits import NONE, amount
from ttt_core.evaluation.analysis.summary import ModelSummary, Row
from ttt_core.evaluation.report import drawings
from ttt_core.evaluation.report.sheet import Sheet

_NOTE = (
    "FLOPs are counted in the paper's terms (arXiv 2512.13898, section 3.3), with the true token "
    "counts; they are means over the documents. Seconds are medians of what was measured where "
    "this ran, as throughput of a batch; they say little about other machines. Reading and "
    "adapting are spent once a document, so their share fades with each further question."
)


def add_costs(sheet: Sheet, model: ModelSummary) -> None:
    """Figures of score against cost, and the table behind them, folded away."""
    if not any(row.costs for row in model.rows):
        return
    sheet.add_heading(f"Costs: {model.model}")
    sheet.add_text(_NOTE)
    drawings.add_costs(sheet, model)
    part = sheet.add_details(f"Costs by task, length and arm ({model.model})")
    header = ["task", "length", "arm", "FLOPs: read", "adapt", "a question", "1 question in all"]
    header += [f"{MANY} in all", "seconds: document", "a question", f"{MANY} in all", "timed"]
    rows = [_row(row, row.costs) for row in model.rows if row.costs]
    part.add_table(header, rows, align="lrl" + "r" * (len(header) - 3))


def _row(row: Row, costs: Costs) -> list[str]:
    return [
        row.task,
        NONE if row.length is None else f"{row.length:,}",
        row.arm,
        amount(costs.flops_read),
        amount(costs.flops_adapt),
        amount(costs.flops_question),
        amount(costs.flops_one),
        amount(costs.flops_many),
        amount(costs.seconds_document),
        amount(costs.seconds_question),
        amount(costs.seconds_many),
        f"{costs.timed:,}",
    ]
