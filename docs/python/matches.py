from itertools import combinations
from pathlib import Path

import cv2

import anchorsfm

sift, matcher, matches = cv2.SIFT_create(), cv2.BFMatcher(crossCheck=True), {}
found = {f.name: sift.detectAndCompute(cv2.imread(str(f)), None) for f in sorted(Path("photos").iterdir())}
for a, b in combinations(found, 2):
    both = [(m.queryIdx, m.trainIdx) for m in matcher.match(found[a][1], found[b][1])]
    matches[a, b] = [cv2.KeyPoint_convert(found[n][0], [m[k] for m in both]) for k, n in enumerate((a, b))]
model = anchorsfm.reconstruct_matches(matches, photographs="photos", pixel_centre=0, mapper="tracks")
print(model, model.warnings)
model.save("from-matches")
