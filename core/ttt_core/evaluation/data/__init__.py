"""Rows of data sets from files, folders and the Hugging Face Hub; see `sources.read_rows`."""

from ttt_core.evaluation.data.formats import Row
from ttt_core.evaluation.data.hub import HUB
from ttt_core.evaluation.data.sources import Source, data_files, read_rows, text_files

__all__ = ["HUB", "Row", "Source", "data_files", "read_rows", "text_files"]
