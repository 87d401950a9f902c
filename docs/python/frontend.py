import cv2

import anchorsfm


class Mine(anchorsfm.PairFrontend):
    def predict(self, rgb_i, rgb_j):
        sift = cv2.SIFT_create()
        (points_i, words_i), (points_j, words_j) = (
            sift.detectAndCompute(rgb_i, None),
            sift.detectAndCompute(rgb_j, None),
        )
        best = cv2.BFMatcher(crossCheck=True).match(words_i, words_j)
        xy_i = cv2.KeyPoint_convert(points_i, [m.queryIdx for m in best]) + 0.5
        return {"xy_i": xy_i, "xy_j": cv2.KeyPoint_convert(points_j, [m.trainIdx for m in best]) + 0.5}


print(anchorsfm.reconstruct("photos", "out-mine", frontend=Mine()))
