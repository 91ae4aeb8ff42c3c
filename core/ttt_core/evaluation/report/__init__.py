"""The report: what the results say, for a person who was not there, as Markdown and as one page.

opening     the verdict, and what was run        advice    what it means, and what to do next
scoring     scores, differences, break-downs
drawings    the figures                          spending  FLOPs and seconds
closing     failures, choices, and how it was measured
"""

from ttt_core.evaluation.report.advice import advise
from ttt_core.evaluation.report.gathering import Findings, gather
from ttt_core.evaluation.report.scoring import average_table, score_table
from ttt_core.evaluation.report.writing import write_findings, write_report

__all__ = [
    "Findings",
    "advise",
    "average_table",
    "gather",
    "score_table",
    "write_findings",
    "write_report",
]
