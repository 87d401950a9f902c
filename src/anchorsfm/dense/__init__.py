"""Dense depth maps and clouds of a model, from the front end's depth and the adjusted cameras."""
