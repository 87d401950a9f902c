"""Keypoint networks and the matchers trained for them, as kornia has them, with the weights of their authors.

ALIKED: Zhao et al., "ALIKED: A lighter keypoint and descriptor extraction network via deformable transformation", IEEE
TIM 2023. DISK: Tyszkiewicz, Fua and Trulls, "DISK: Learning local features with policy gradient", NeurIPS 2020. XFeat:
Potje et al., "XFeat: Accelerated features for lightweight image matching", CVPR 2024. LightGlue: Lindenberger, Sarlin
and Pollefeys, "LightGlue: Local feature matching at light speed", ICCV 2023.
"""
