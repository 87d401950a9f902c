"""Heavy stages on many machines, by Ray: loaded only where a run asks for it."""
