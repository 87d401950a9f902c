"""Models in the formats of other programs: `run` writes them, `config` says which there are."""
