"""Poses of new photographs against a finished model, from what the run kept of it; no old photograph is looked at.

`index` is what is kept, `candidates` which images of the model a photograph may show, `pose` the pose and its
deviations, `run` the whole of it and `folder` what is written.
"""
