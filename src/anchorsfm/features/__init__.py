"""Keypoints and descriptors of an image, and which descriptors of two images match."""
