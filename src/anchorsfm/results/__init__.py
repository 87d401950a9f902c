"""Finished models and runs, read back from disk: the one reader of what lies in an output folder.

`record` is the content of report.json and `reading` reads it; `run` is an output folder, `model` a model in it, or one
from elsewhere. What belongs to a model is read when it is asked for.
"""
