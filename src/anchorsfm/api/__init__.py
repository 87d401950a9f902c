"""What only Python users need: finished models by name, and the stages of the method as functions to call.

Its names are those of `anchorsfm` itself, which imports them when they are first asked for.
"""
