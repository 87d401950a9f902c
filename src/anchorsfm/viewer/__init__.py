"""A reconstruction in the browser, through viser: what is drawn is plain data that needs no browser."""
