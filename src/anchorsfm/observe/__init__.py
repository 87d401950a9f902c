"""What all pairs say together: predictions condensed to a scene graph, canonical views, anchors, a kinematic tree."""
