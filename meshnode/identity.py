"""Who this process is: the node's Ed25519 key, its certificate for TLS, and the boot id of this start.

What lives here: `SigningKey`, `Identity`, and key files (reading, creating, refusing). What does not: the directory
they lie in (`meshnode.state`), what a key may do (`proto.credential`). Called by the state directory, founding and the
daemon.

A key file is PKCS#8 PEM, mode 0600, written whole or not at all. One that others can read, or that holds something
else, is refused with what to do about it: a node that silently made itself a new key would be a stranger to its mesh.
"""

from __future__ import annotations

import datetime
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from meshnode.durable import DamagedState, StateError, create_exclusively, unreadable, write_atomically
from proto.ids import BOOT_ID_BYTES, BootId, NodeId, node_id_of

_MAX_KEY_FILE_BYTES: Final = 16_384
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_FIRST_DAY: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_LAST_DAY: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
_SERIAL: Final = 1


class ExposedKey(StateError):
    """A key file that other users can read or write."""


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 private key. Its text form shows the public half only."""

    private_key: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the operating system's random source."""
        return cls(Ed25519PrivateKey.generate())

    @cached_property
    def public_key(self) -> bytes:
        """The raw 32 bytes of the public key."""
        return self.private_key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of an Ed25519 signature (RFC 8032) over `data`."""
        return self.private_key.sign(data)

    def __repr__(self) -> str:
        return f"SigningKey({node_id_of(self.public_key)})"


@dataclass(frozen=True)
class Identity:
    """This process: the node's key and the boot id drawn at this start."""

    key: SigningKey
    boot_id: BootId

    @classmethod
    def starting(cls, key: SigningKey) -> Identity:
        """The identity of a process that starts now with `key`: its boot id is fresh."""
        return cls(key, BootId(os.urandom(BOOT_ID_BYTES)))

    @cached_property
    def node(self) -> NodeId:
        """The node id: the public key in lowercase base32."""
        return node_id_of(self.key.public_key)

    @property
    def public_key(self) -> bytes:
        """The raw 32 bytes of the public key."""
        return self.key.public_key

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """The key as TLS wants it."""
        return self.key.private_key

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of an Ed25519 signature over `data`."""
        return self.key.sign(data)

    @cached_property
    def certificate(self) -> x509.Certificate:
        """A self-signed certificate of the node's key, made in memory.

        Peers compare its public key with the node id they dialled and ignore the rest; it is valid from 2000 to 9999,
        so that a wrong clock on either side does no harm.
        """
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.node)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.private_key.public_key())
            .serial_number(_SERIAL)
            .not_valid_before(_FIRST_DAY)
            .not_valid_after(_LAST_DAY)
        )
        return builder.sign(self.private_key, algorithm=None)


def read_key_file(path: Path, fix: str) -> SigningKey | None:
    """The key in `path`; None where there is no such file. `fix` is the advice where it is damaged.

    Raises `ExposedKey` where its mode lets others at it, `StateError` where it is unreadable or no file, `DamagedState`
    where it holds anything but an unencrypted Ed25519 private key in PKCS#8 PEM.
    """
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            content = file.read(_MAX_KEY_FILE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        advice = "run meshnode as the user that owns it, or give the file to this one"
        raise unreadable(path, error, advice) from error
    if state.st_mode & _OTHERS:
        mode = f"its mode is {stat.S_IMODE(state.st_mode):04o}, so that other users can get at the key"
        raise ExposedKey(path, mode, f"chmod 600 {path}")
    return SigningKey(_private_key_in(path, content, fix))


def write_key_file(path: Path, key: SigningKey) -> None:
    """Put `key` at `path`, durably, mode 0600. Raises `StateError`."""
    write_atomically(path, _pem_of(key))


def export_key_file(path: Path, key: SigningKey) -> None:
    """Put `key` into a new file, mode 0600. Raises `StateError` where the file exists."""
    create_exclusively(path, _pem_of(key))


def _private_key_in(path: Path, content: bytes, fix: str) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # TypeError: the key is encrypted. The library's text is not repeated: it may quote what it read.
        raise DamagedState(path, "damaged or encrypted: no PKCS#8 private key can be read from it", fix) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise DamagedState(path, f"holds a {type(key).__name__.lstrip('_')}, not an Ed25519 key", fix)
    return key


def _pem_of(key: SigningKey) -> bytes:
    return key.private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
