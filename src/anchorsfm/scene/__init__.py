"""The data types that flow between stages. No algorithms, no I/O."""
