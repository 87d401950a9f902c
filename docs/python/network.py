import sys

import anchorsfm

weights = sys.argv[1] if len(sys.argv) > 1 else "naver/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric"
net = anchorsfm.load_mast3r(weights, device="auto", accept_weights_license=True)
match = net.match("photos/0000.jpg", "photos/0001.jpg")
print(match)
for xy_a, xy_b, confidence in list(zip(match.xy_a, match.xy_b, match.confidence, strict=True))[:5]:
    print(xy_a, xy_b, confidence)
print("points of a in the frame of b:", match.frame_b.other.shape, "confidence", match.frame_b.other_confidence.mean())
print(len(net.match(["photos/0000.jpg", "photos/0001.jpg"], ["photos/0002.jpg", "photos/0003.jpg"])), "pairs at once")
