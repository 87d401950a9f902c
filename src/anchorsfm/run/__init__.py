"""A run as a whole: what its stages came to, and what it writes."""
