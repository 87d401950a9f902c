"""From matches or alignments to finished models: mappers, known cameras, the start of the adjustment and its end."""
