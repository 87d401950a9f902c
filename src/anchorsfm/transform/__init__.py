"""A finished model in another frame (level, in metres, to the north, cropped), with everything in its output folder."""
