"""The report of a batch run: its findings on one HTML page."""

from sam2unet_core.report.entry import Entry
from sam2unet_core.report.findings import Findings, FindingsCollector
from sam2unet_core.report.page import Failure, Page, render

__all__ = ["Entry", "Failure", "Findings", "FindingsCollector", "Page", "render"]
