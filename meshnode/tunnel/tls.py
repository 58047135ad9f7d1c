"""TLS for tunnels over TCP: the server proves its node key, and the client checks exactly that.

What lives here: the two contexts and `node_of`. What does not: sockets (`tls_socket`), who may connect (`tickets`).

The certificate is the one of the QUIC links: self-signed, made of the node's Ed25519 key. A client compares its public
key with the node it means and ignores the rest, dates included, so that wrong clocks do no harm; TLS 1.3 proves
possession of the key whatever is verified (RFC 8446, section 4.4.3). No tickets for resumption, which would bring data
before the peer is known.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from meshnode.transport.boundary import LocalIdentity
from proto.ids import NodeId, node_id_of

TUNNEL_ALPN = "meshnode-tunnel/1"
"""Names the framing inside (`framing`); another one is another protocol."""


def accepting_context(identity: LocalIdentity, scratch: Path) -> ssl.SSLContext:
    """For connections from others. The ssl module reads a key from files only: it stands for a moment in a directory
    of mode 0700 below `scratch`, where the node's own key file lies anyway. Raises `OSError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    context.num_tickets = 0
    key = identity.private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with tempfile.TemporaryDirectory(prefix="tls-", dir=scratch) as directory:
        file = Path(directory) / "certificate-and-key.pem"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as out:
            out.write(key + identity.certificate.public_bytes(serialization.Encoding.PEM))
        context.load_cert_chain(file)
    return context


def dialling_context() -> ssl.SSLContext:
    """For connections to others. It verifies nothing but possession of the key: compare `node_of`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _restrict(context)
    return context


def node_of(certificate: bytes | None) -> NodeId | None:
    """The node whose certificate this is, in DER; None where it is no node's."""
    if certificate is None:
        return None
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except ValueError:
        return None
    return node_id_of(key.public_bytes_raw()) if isinstance(key, Ed25519PublicKey) else None


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([TUNNEL_ALPN])
