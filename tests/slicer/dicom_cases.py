"""DICOM files that the tests make."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CT_STORAGE = UID("1.2.840.10008.5.1.4.1.1.2")
SECONDARY_CAPTURE = UID("1.2.840.10008.5.1.4.1.1.7.4")  # multi-frame true colour
SHAPE = (4, 12, 10)
SPACING = (2.5, 0.8, 0.6)  # slice, row, column


def header(sop_class):
    """Return a file with patient and study, but without pixels."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = generate_uid()
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.PatientID, ds.PatientName = "P1", "Doe^J"
    ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.StudyID = ""
    ds.StudyDate = ds.StudyTime = ds.ReferringPhysicianName = ds.Manufacturer = ""
    ds.Rows, ds.Columns = SHAPE[1:]
    return ds


def write_ct(folder):
    """Write four slices whose file names and instance numbers run against their places.

    Returns:
        Their values in Hounsfield units, and their SOP instance UIDs, both by place.
    """
    array = np.random.default_rng(9).integers(-500, 500, SHAPE).astype(np.int16)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    uids = []
    folder.mkdir()
    for k, plane in enumerate(array):
        ds = header(CT_STORAGE)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "CT", 1, len(array) - k
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [-20, -30, 100 + SPACING[0] * k]
        ds.PixelSpacing, ds.SliceThickness = list(SPACING[1:]), SPACING[0]
        ds.PositionReferenceIndicator = ""
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleIntercept, ds.RescaleSlope = 0, 1
        ds.PixelData = plane.tobytes()
        ds.save_as(folder / f"{len(array) - k}.dcm", enforce_file_format=True)
        uids.append(ds.SOPInstanceUID)
    return array, uids
