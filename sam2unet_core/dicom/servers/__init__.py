"""DICOM over the network: results sent by STOW-RS and C-STORE, studies fetched by WADO-RS."""

from sam2unet_core.dicom.servers.address import (
    Destination,
    Node,
    Tls,
    WebServer,
    is_web_address,
    parse_destination,
)
from sam2unet_core.dicom.servers.fetch import fetch_study, local_paths
from sam2unet_core.dicom.servers.outbox import Parcel, SendOutcome, send_files

__all__ = [
    "Destination",
    "Node",
    "Parcel",
    "SendOutcome",
    "Tls",
    "WebServer",
    "fetch_study",
    "is_web_address",
    "local_paths",
    "parse_destination",
    "send_files",
]
