"""Models in the formats of other programs."""

from anchorsfm.export.run import ExportConfig, ExportFormat, export

__all__ = ["ExportConfig", "ExportFormat", "export"]
