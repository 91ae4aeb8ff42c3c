"""A larger sandbox model: the same recipe with more layers, text-like data and more tasks.

`python -m ttt_core.sandbox.larger --output DIR` trains it; see README.md beside this file.
"""
