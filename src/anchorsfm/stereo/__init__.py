"""Dense depth of two views with known geometry: plane sweep, semi-global aggregation, confidence, refinement."""
