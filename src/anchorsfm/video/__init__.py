"""Frames of videos: decoded as a stream, measured, chosen by sharpness and by how far the view has moved, written."""
