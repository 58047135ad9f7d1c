"""llama.cpp's shared libraries as the PyPI package `llama-cpp-python` brings them, called through ctypes.

What lives here: finding the package without importing it, and the few functions of ggml's C interface that run an RPC
server or name devices. What does not: the model itself (`meshnode.engine.serving.process` uses the package's own
class). Called in child processes only: a crash in there takes the child, not the node.

Source: ggml-backend.h and ggml-rpc.h of the llama.cpp that version 0.3.36 of the package carries.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

PACKAGE: Final = "llama_cpp"
DISTRIBUTION: Final = "llama-cpp-python"
RPC_LIBRARY: Final = "libggml-rpc.so"


class NativeMissing(Exception):
    """The libraries can't be used: what is missing."""


def library_directory() -> Path | None:
    """Where the package keeps its libraries; None where it is not installed."""
    spec = find_spec(PACKAGE)
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    return Path(places[0]) / "lib" if places else None


def package_version() -> str | None:
    """The package's version; None where it is not installed."""
    # Nearly a megabyte, which a node without an engine need not hold.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return None


class Native:
    """ggml as loaded into this process. Raises `NativeMissing`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ggml = self._load("libggml.so")
        self._base = self._load("libggml-base.so")
        self._rpc = self._load(RPC_LIBRARY)
        self._device_by_name = _function(self._ggml, "ggml_backend_dev_by_name", ctypes.c_void_p, ctypes.c_char_p)
        self._devices_of = _function(
            self._base, "ggml_backend_reg_dev_get", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
        )
        self._device_count = _function(self._base, "ggml_backend_reg_dev_count", ctypes.c_size_t, ctypes.c_void_p)

    def device(self, name: str) -> int:
        """The handle of a local device such as `CPU` or `CUDA0`."""
        handle = self._device_by_name(name.encode())
        if not handle:
            raise NativeMissing(f"this llama.cpp has no device {name}; was it built for it?")
        return int(handle)

    def remote_devices(self, endpoint: str) -> list[int]:
        """The handles of all devices behind the RPC server at `endpoint`; connects to it."""
        add_server = _function(self._rpc, "ggml_backend_rpc_add_server", ctypes.c_void_p, ctypes.c_char_p)
        registry = add_server(endpoint.encode())
        if not registry:
            raise NativeMissing(f"the RPC server at {endpoint} has no devices")
        return [int(self._devices_of(registry, index)) for index in range(self._device_count(registry))]

    def serve_rpc(self, endpoint: str, cache: Path | None, threads: int, devices: Sequence[str]) -> None:
        """Serve `devices` at `endpoint`. Returns only when it can't."""
        start = _function(
            self._rpc, "ggml_backend_rpc_start_server", None,
            ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p,
        )  # fmt: skip
        handles = (ctypes.c_void_p * len(devices))(*[self.device(name) for name in devices])
        start(endpoint.encode(), None if cache is None else str(cache).encode(), threads, len(devices), handles)

    def _load(self, name: str) -> ctypes.CDLL:
        path = self._directory / name
        if not path.exists():
            raise NativeMissing(
                f"{path} is not there: {DISTRIBUTION} must be built with CMAKE_ARGS=-DGGML_RPC=ON to run splits"
            )
        try:
            return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise NativeMissing(f"{path} can't be loaded: {error}") from error


def _function(library: ctypes.CDLL, name: str, result: object, *arguments: object):  # type: ignore[no-untyped-def]  # noqa: ANN202
    function = getattr(library, name)
    function.restype = result
    function.argtypes = list(arguments)
    return function
