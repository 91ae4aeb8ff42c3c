"""How good an answer is, from 0 to 1: the metrics of published benchmarks, one family a file.

qa_f1           words in common             rouge            summaries
classification  the right class, and no other    choice      the right letter
retrieval       the right number, and no other   percentage  how near a percentage is
code_similarity one line of code            order            pairs in the right order

Importing this loads no library; what is missing is named when it is needed.
"""

from ttt_core.evaluation.metrics.best import best_of
from ttt_core.evaluation.metrics.choice import choice_accuracy
from ttt_core.evaluation.metrics.classification import classification_score
from ttt_core.evaluation.metrics.code_similarity import code_similarity
from ttt_core.evaluation.metrics.order import concordance
from ttt_core.evaluation.metrics.percentage import exponential_similarity
from ttt_core.evaluation.metrics.qa_f1 import qa_f1, qa_f1_ascii, qa_f1_chinese
from ttt_core.evaluation.metrics.retrieval import count_score, retrieval_score
from ttt_core.evaluation.metrics.rouge import rouge_geometric_mean, rouge_l, rouge_l_chinese

__all__ = [
    "best_of",
    "choice_accuracy",
    "classification_score",
    "code_similarity",
    "concordance",
    "count_score",
    "exponential_similarity",
    "qa_f1",
    "qa_f1_ascii",
    "qa_f1_chinese",
    "retrieval_score",
    "rouge_geometric_mean",
    "rouge_l",
    "rouge_l_chinese",
]
