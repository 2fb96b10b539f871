"""The report of a batch run: its findings on one HTML page."""

from sam2unet_core.report.findings import Entry, Findings, FindingsCollector
from sam2unet_core.report.page import Failure, Page, render

__all__ = ["Entry", "Failure", "Findings", "FindingsCollector", "Page", "render"]
