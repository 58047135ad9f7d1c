"""Keys on disk, and the certificate that TLS gets."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

from meshnode.durable import DamagedState, StateError
from meshnode.identity import ExposedKey, Identity, SigningKey, export_key_file, read_key_file, write_key_file
from proto.ids import node_id_of
from proto.signing import verify

FIX = "restore it"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "node.key"


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    file.chmod(0o600)
    return file


def pem_of(key: ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey, password: bytes | None = None) -> bytes:
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


def test_a_key_comes_back_as_it_was_written(file: Path) -> None:
    key = SigningKey.generate()
    write_key_file(file, key)
    read = read_key_file(file, FIX)
    assert read is not None
    assert read.public_key == key.public_key


def test_a_key_file_is_private(file: Path) -> None:
    write_key_file(file, SigningKey.generate())
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o777])
def test_a_key_file_others_can_get_at_is_refused_with_the_command_that_fixes_it(file: Path, mode: int) -> None:
    write_key_file(file, SigningKey.generate())
    file.chmod(mode)
    with pytest.raises(ExposedKey, match=f"mode is {mode:04o}.*chmod 600 {file}$"):
        read_key_file(file, FIX)


def test_a_stricter_mode_is_fine(file: Path) -> None:
    write_key_file(file, SigningKey.generate())
    file.chmod(0o400)
    assert read_key_file(file, FIX) is not None


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_file_is_one_error_with_the_fix(file: Path, content: bytes) -> None:
    with pytest.raises(DamagedState, match=f"{FIX}$"):
        read_key_file(written(file, content), FIX)


def test_half_a_key_file_is_damaged(file: Path) -> None:
    pem = pem_of(ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(DamagedState):
        read_key_file(written(file, pem[: len(pem) // 2]), FIX)


def test_an_encrypted_key_is_refused(file: Path) -> None:
    pem = pem_of(ed25519.Ed25519PrivateKey.generate(), b"password")
    with pytest.raises(DamagedState, match="damaged or encrypted"):
        read_key_file(written(file, pem), FIX)


def test_a_key_of_another_kind_is_named(file: Path) -> None:
    with pytest.raises(DamagedState, match="X25519PrivateKey, not an Ed25519 key"):
        read_key_file(written(file, pem_of(x25519.X25519PrivateKey.generate())), FIX)


def test_a_damaged_key_file_is_not_quoted(file: Path) -> None:
    pem = pem_of(ed25519.Ed25519PrivateKey.generate())
    body = pem.splitlines()[1].decode()
    with pytest.raises(DamagedState) as caught:
        read_key_file(written(file, pem.replace(b"BEGIN", b"BEGINS")), FIX)
    assert body not in str(caught.value)


def test_a_missing_key_file_is_no_error(file: Path) -> None:
    assert read_key_file(file, FIX) is None


def test_an_export_never_overwrites(file: Path) -> None:
    export_key_file(file, SigningKey.generate())
    before = file.read_bytes()
    with pytest.raises(StateError, match="never overwritten"):
        export_key_file(file, SigningKey.generate())
    assert file.read_bytes() == before
    assert file.stat().st_mode & 0o777 == 0o600


def test_printing_a_key_shows_its_public_half_only() -> None:
    key = SigningKey.generate()
    private = key.private_key.private_bytes_raw()
    assert repr(key) == f"SigningKey({node_id_of(key.public_key)})"
    assert private.hex() not in repr(Identity.starting(key))


def test_a_certificate_carries_the_node_s_key_and_is_signed_by_it() -> None:
    identity = Identity.starting(SigningKey.generate())
    certificate = identity.certificate
    public = certificate.public_key()
    assert isinstance(public, ed25519.Ed25519PublicKey)
    assert node_id_of(public.public_bytes_raw()) == identity.node
    public.verify(certificate.signature, certificate.tbs_certificate_bytes)


@pytest.mark.parametrize("year", [2001, 2026, 2100, 9998])
def test_a_certificate_is_valid_whatever_year_a_wrong_clock_shows(year: int) -> None:
    certificate = Identity.starting(SigningKey.generate()).certificate
    moment = datetime.datetime(year, 6, 1, tzinfo=datetime.UTC)
    assert certificate.not_valid_before_utc < moment < certificate.not_valid_after_utc


def test_a_certificate_is_small_enough_for_quic() -> None:
    """A certificate above 16 KiB hangs the handshake (aioquic 1.7.2)."""
    der = Identity.starting(SigningKey.generate()).certificate.public_bytes(serialization.Encoding.DER)
    assert len(der) < 1000


def test_an_identity_signs_with_the_key_its_id_names() -> None:
    identity = Identity.starting(SigningKey.generate())
    assert verify(identity.public_key, identity.sign(b"data"), b"data")
