import cv2

import anchorsfm


class Mine(anchorsfm.PairFrontend):
    def predict(self, rgb_i, rgb_j):
        (found_i, words_i), (found_j, words_j) = (cv2.SIFT_create().detectAndCompute(p, None) for p in (rgb_i, rgb_j))
        best = cv2.BFMatcher(crossCheck=True).match(words_i, words_j)
        ends = [cv2.KeyPoint_convert(found_i, [m.queryIdx for m in best])]
        ends += [cv2.KeyPoint_convert(found_j, [m.trainIdx for m in best])]
        return {"xy_i": ends[0] + 0.5, "xy_j": ends[1] + 0.5}


print(anchorsfm.reconstruct("photos", "out-mine", frontend=Mine()))
