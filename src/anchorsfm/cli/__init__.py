"""The command line: one module a command, and `main`, which chooses among them; the only place that prints."""
