"""The summary the command line prints."""

from anchorsfm.results.record import RunReport

_MAX_CAMERAS = 3
"""Cameras named in the summary; report.json has all."""


def summary_lines(report: RunReport) -> list[str]:
    """The end of a run in words: what came out, what did not and why, what it cost."""
    lines = [f"{report.num_registered} of {len(report.images)} images registered in {_count(report.models, 'model')}"]
    lines += [f"  {video.summary()}" for video in report.videos]
    if report.pair_search is not None:
        search, count = report.pair_search, len(report.images)
        lines.append(
            f"  pairs: {search.tried} of {count * (count - 1) // 2} tried in {_rounds(search.rounds)}, "
            f"{search.verified} verified"
        )
    listed = report.pair_list
    if listed.methods:
        found = ", ".join(f"{listed.method.count(k)} by {name}" for k, name in enumerate(listed.methods))
        lines.append(f"  pairs that two detectors looked at: matched {found}")
    for model in report.models:
        lines.append(
            f"  model {model.number}: {model.registered} images, {model.points} points, "
            f"mean track length {model.mean_track_length:.2f}, "
            f"mean reprojection error {model.mean_reprojection_error_px:.2f} px"
        )
        lines += [f"    {camera}" for camera in model.cameras[:_MAX_CAMERAS]]
        if len(model.cameras) > _MAX_CAMERAS:
            lines.append(f"    and {len(model.cameras) - _MAX_CAMERAS} more cameras")
        lines += [f"    note: {remark}" for remark in model.remarks]
        if model.uncertainty.weak_images:
            lines.append(f"    weakly held: {', '.join(model.uncertainty.weak_images)}")
    for image in report.images:
        if image.model is None:
            lines.append(f"  not registered: {image.name} ({image.reason})")
    lines.append("stage               wall s    CPU s   peak MiB")
    for stage in report.stages:
        lines.append(f"{stage.stage:<18}{stage.wall_s:8.1f} {stage.cpu_s:8.1f} {stage.peak_memory_mib:10.0f}")
    wall, cpu = sum(s.wall_s for s in report.stages), sum(s.cpu_s for s in report.stages)
    peak = max((s.peak_memory_mib for s in report.stages), default=0.0)
    lines.append(f"{'total':<18}{wall:8.1f} {cpu:8.1f} {peak:10.0f}")
    return lines


def _rounds(count: int) -> str:
    return f"{count} round" + ("" if count == 1 else "s")


def _count(items: tuple[object, ...], noun: str) -> str:
    return f"{len(items)} {noun}" + ("" if len(items) == 1 else "s")
