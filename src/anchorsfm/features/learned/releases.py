"""The files of weights, as their authors released them."""

from collections.abc import Mapping

from anchorsfm.features.config import LearnedDetectorName
from anchorsfm.io.weights.release import ReleaseFile

_LIGHTGLUE = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/"
_XFEAT = "https://github.com/verlab/accelerated_features/raw/main/weights/"

DETECTOR_WEIGHTS: Mapping[LearnedDetectorName, ReleaseFile] = {
    "aliked": ReleaseFile(
        name="aliked-n16.pth",
        network="ALIKED, keypoints",
        url="https://github.com/Shiaoming/ALIKED/raw/main/models/aliked-n16.pth",
        sha256="5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
        size_bytes=2_738_091,
        terms="ALIKED: BSD-3-Clause",
    ),
    "disk": ReleaseFile(
        name="disk-depth-save.pth",
        network="DISK, keypoints",
        url="https://github.com/cvlab-epfl/disk/raw/master/depth-save.pth",
        sha256="9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
        size_bytes=4_375_832,
        terms="DISK: Apache-2.0",
    ),
    "xfeat": ReleaseFile(
        name="xfeat.pt",
        network="XFeat, keypoints",
        url=f"{_XFEAT}xfeat.pt",
        sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
        size_bytes=6_247_949,
        terms="XFeat: Apache-2.0",
    ),
}
MATCHER_WEIGHTS: Mapping[LearnedDetectorName, ReleaseFile] = {
    "aliked": ReleaseFile(
        name="aliked_lightglue.pth",
        network="LightGlue, matches of ALIKED",
        url=f"{_LIGHTGLUE}aliked_lightglue.pth",
        sha256="d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
        size_bytes=47_632_827,
        terms="LightGlue: Apache-2.0",
    ),
    "disk": ReleaseFile(
        name="disk_lightglue.pth",
        network="LightGlue, matches of DISK",
        url=f"{_LIGHTGLUE}disk_lightglue.pth",
        sha256="b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335",
        size_bytes=47_631_405,
        terms="LightGlue: Apache-2.0",
    ),
    "xfeat": ReleaseFile(
        name="xfeat-lighterglue.pt",
        network="LighterGlue, matches of XFeat",
        url=f"{_XFEAT}xfeat-lighterglue.pt",
        sha256="766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
        size_bytes=10_820_795,
        terms="LighterGlue: Apache-2.0",
    ),
}
"""Of the matcher that was trained for the keypoints of a detector."""
