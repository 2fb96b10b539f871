"""Images, video and volumes that are not DICOM, read and written."""
