"""C-STORE: send DICOM files over one association (PS3.4 annex B, PS3.8)."""

from __future__ import annotations

import importlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ImplicitVRLittleEndian

from sam2unet_core.dicom.servers.address import Node, Tls, check_ae_title
from sam2unet_core.dicom.servers.store_answer import describe_failure, describe_warning, is_warning
from sam2unet_core.dicom.servers.web import ANSWER_S, CONNECT_S, tls_reason
from sam2unet_core.errors import MissingExtraError, NetworkError, RefusedError

NEGOTIATE_S = 30.0
"""Timeout for the negotiation of an association, in seconds."""
_MAX_CONTEXTS = 128
_SUCCESS = 0x0000


class NodeSender:
    """Stores files over an established association.

    Args:
        library: pynetdicom.
        association: with the node.
        node: its address, for messages.
    """

    def __init__(self, library: Any, association: Any, node: Node) -> None:
        self._library, self._association, self._node = library, association, node

    def send(self, path: Path) -> str:
        """Store a DICOM file, streamed unless the node requires another encoding.

        Returns:
            the node's warning, or empty.

        Raises:
            RefusedError: the node refuses this file.
            NetworkError: the association has ended.
        """
        if not self._association.is_established:
            raise self._broken()
        try:
            answer = self._store(path)
        except RuntimeError as error:
            raise self._broken() from error
        if "Status" not in answer:
            raise self._broken()
        status = int(answer.Status)
        if is_warning(status):
            return f"the server warns: {describe_warning(status)}"
        if status != _SUCCESS:
            raise RefusedError(f"refused by the server: status {describe_failure(status)}")
        return ""

    def _store(self, path: Path) -> Any:
        config = self._library._config
        previous = config.STORE_SEND_CHUNKED_DATASET
        try:
            config.STORE_SEND_CHUNKED_DATASET = True
            return self._association.send_c_store(path)
        except ValueError:  # not accepted in the file's own encoding
            pass
        finally:
            config.STORE_SEND_CHUNKED_DATASET = previous
        try:
            return self._association.send_c_store(dcmread(path))
        except ValueError:
            sop_class = _syntaxes(path)[0]
            raise RefusedError(f"the server does not accept {UID(sop_class).name}") from None

    def _broken(self) -> NetworkError:
        return NetworkError(f"{self._node}: the server ended the connection; run this again")


@contextmanager
def open_node_sender(
    node: Node, files: Sequence[Path], *, tls: Tls, calling_ae: str
) -> Iterator[NodeSender]:
    """Open an association for the SOP classes in `files`, and release it at the end.

    Raises:
        MissingExtraError: pynetdicom is not installed.
        NetworkError: the node cannot be reached or rejects the association.
        ConfigError: unusable TLS files, or an invalid AE title.
    """
    library = _library()
    context = tls.context() if tls.wanted else None
    entity = library.AE(ae_title=check_ae_title(calling_ae))
    entity.connection_timeout = CONNECT_S
    entity.acse_timeout = NEGOTIATE_S
    entity.dimse_timeout = entity.network_timeout = ANSWER_S
    association = entity.associate(
        node.host,
        node.port,
        contexts=_contexts(library, files),
        ae_title=node.ae_title,
        tls_args=(context, node.host) if context else None,
        evt_handlers=[(library.evt.EVT_CONN_CLOSE, _wake)],
    )
    if not association.is_established:
        raise NetworkError(f"{node}: {_association_error(association, node, context)}")
    try:
        yield NodeSender(library, association, node)
    finally:
        if association.is_established:
            association.release()


def _contexts(library: Any, files: Sequence[Path]) -> list[Any]:
    """Return one presentation context per SOP class and transfer syntax."""
    wanted: dict[tuple[str, str], None] = {}
    for path in files:
        try:
            sop_class, syntax = _syntaxes(path)
        except (InvalidDicomError, AttributeError):
            continue  # reported when the file is sent
        wanted[sop_class, syntax] = None
        if not UID(syntax).is_compressed:
            wanted[sop_class, str(ImplicitVRLittleEndian)] = None  # which every node accepts
    if len(wanted) > _MAX_CONTEXTS:
        raise NetworkError(
            f"{len(wanted)} combinations of SOP class and transfer syntax, but an association "
            f"allows {_MAX_CONTEXTS}; send them to a DICOMweb service"
        )
    return [library.build_context(sop_class, syntax) for sop_class, syntax in wanted]


def _syntaxes(path: Path) -> tuple[str, str]:
    """Return the SOP class and the transfer syntax of a file."""
    meta = read_file_meta_info(path)
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


def _wake(event: Any) -> None:
    """End the wait for a response; pynetdicom misses a connection lost before the wait."""
    event.assoc.dimse.msg_queue.put((None, None))


def _association_error(association: Any, node: Node, context: ssl.SSLContext | None) -> str:
    if association.is_rejected:
        answer = association.acceptor.primitive
        return f"the server rejected the association: {answer.reason_str}; check the AE titles"
    if association.rejected_contexts and not association.accepted_contexts:
        return "the server accepts none of these SOP classes"
    try:
        with socket.create_connection((node.host, node.port), timeout=CONNECT_S) as plain:
            if context is not None:
                context.wrap_socket(plain, server_hostname=node.host).close()
    except ssl.SSLError as error:
        return f"no secure connection: {tls_reason(error)}"
    except OSError as error:
        return f"no connection: {(error.strerror or 'no answer in time').lower()}"
    return "the server ended the negotiation; check --tls, --cert and the AE titles"


def _library() -> Any:
    try:
        return importlib.import_module("pynetdicom")
    except ImportError as error:
        raise MissingExtraError(
            "C-STORE needs pynetdicom, which is not installed: pip install 'sam2unet[send]'"
        ) from error
