"""Data sets on disk as lists of samples: paired, checked and split by groups."""

from sam2unet_core.data.check import check_samples
from sam2unet_core.data.datalist import datalist_sections, read_datalist
from sam2unet_core.data.groups import group_of, read_groups
from sam2unet_core.data.pixels import read_sample
from sam2unet_core.data.problems import raise_problems
from sam2unet_core.data.samples import LAYOUT, Sample, read_dataset
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
