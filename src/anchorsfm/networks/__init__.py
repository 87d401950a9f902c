"""Neural networks as plain modules: no files, no caches, no knowledge of reconstructions."""
