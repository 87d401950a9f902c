import anchorsfm

model = anchorsfm.reconstruct("photos", "out", max_image_size=1600, progress=True)
print(model)
for name, pose in model.poses.items():
    print(name, pose.centre, pose.quaternion, model.intrinsics[name].K[0, 0])
exact = model.points.xyz[model.points.error_px < 0.5]
print(len(exact), "exact points,", len(model.tracks), "observations, not registered:", model.unregistered)
point, xy = model.tracks.seen_by(model.names[0])
print(model.names[0], "sees", len(point), "points, the first at pixel", xy[0], "in colour", model.points.rgb[point[0]])
model.save("exported", text=True, formats=["ply"])
print(anchorsfm.load("out"))
