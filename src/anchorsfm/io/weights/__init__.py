"""Files of trained weights: where they come from, what identifies them, under which terms, and reading them safely."""
