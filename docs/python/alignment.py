import anchorsfm

pairs = anchorsfm.make_pairs("photos", "swin-2")
predictions = anchorsfm.predict_pairs("photos", pairs, "classical", cache="cache")
scene = anchorsfm.condense(predictions, subsample=8, matching_conf_thr=5.0)
print(scene, "focal lengths on the grid:", [round(view.focal_px) for view in scene.canonical.values()])
tree = anchorsfm.kinematic_tree(scene, "hclust-ward")
coarse = anchorsfm.align_coarse(scene, tree, shared_intrinsics=True)
fine = anchorsfm.align_fine(coarse, niter2=300)
print(fine, "losses", coarse.losses["coarse"][-1], fine.losses["fine"][-1])
for name in fine.names:
    view = fine.depth_maps[name]
    print(name, fine.poses[name].centre, view.depth.shape, (view.confidence > 1.5).mean(), view.points().shape)
fine.save_colmap("aligned")
