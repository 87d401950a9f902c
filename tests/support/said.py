"""What a run says while it works."""

from contextlib import AbstractContextManager

from anchorsfm.scene.progress import Advance, Progress


class Said(Progress):
    """Keeps notes, warnings, both in their order, and the names of stages."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.lines: list[str] = []
        self.stages: list[str] = []

    def stage(self, description: str, total: int | None = None) -> AbstractContextManager[Advance]:
        self.stages.append(description)
        return super().stage(description, total)

    def note(self, message: str) -> None:
        self.notes.append(message)
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        self.lines.append(message)
