"""Data sets on disk as lists of samples: paired, checked and split by groups."""

from sam2unet_core.data.lists import datalist_sections, group_of, read_datalist, read_groups
from sam2unet_core.data.samples import (
    LAYOUT,
    Sample,
    check_samples,
    raise_problems,
    read_dataset,
    read_sample,
)
from sam2unet_core.data.splits import Split, load_split, split_samples

__all__ = [
    "LAYOUT",
    "Sample",
    "Split",
    "check_samples",
    "datalist_sections",
    "group_of",
    "load_split",
    "raise_problems",
    "read_datalist",
    "read_dataset",
    "read_groups",
    "read_sample",
    "split_samples",
]
