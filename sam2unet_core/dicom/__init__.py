"""DICOM, both ways: studies read into series of frames, results written as DICOM objects."""

from sam2unet_core.dicom.read import open_study, scan

__all__ = ["open_study", "scan"]
