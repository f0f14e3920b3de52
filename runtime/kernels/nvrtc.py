"""CUDA C++ compiled at run time, through the NVRTC library that every CUDA build of torch brings.

No toolkit, no compiler and no headers are needed on the user's machine: the source includes
nothing, NVRTC gives machine code for the device at hand, the driver loads it. A kernel's
parameter is one ctypes structure, passed by value.
"""

import ctypes
import functools
from collections.abc import Mapping
from pathlib import Path

import torch

from ...planner.errors import MissingDependency

_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_SHARED_OPTIN = 97  # CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN


class _LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute with an integer value."""

    _fields_ = [
        ("id", ctypes.c_int),
        ("padding", ctypes.c_char * 4),
        ("value", ctypes.c_int),
        ("rest", ctypes.c_char * 60),
    ]


class _LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = [
        *((name, ctypes.c_uint) for name in ("gx", "gy", "gz", "bx", "by", "bz", "shared")),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("count", ctypes.c_uint),
    ]


_EARLY = _LaunchAttribute(6, b"", 1)  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION


class Kernel:
    """One loaded function; launches on torch's current stream."""

    def __init__(
        self,
        function: ctypes.c_void_p,
        module: ctypes.c_void_p,
        shared_bytes: int,
        device: int,
    ) -> None:
        self._function = function
        self._device = device
        self._module = module  # the function lives as long as its module
        self._shared_bytes = shared_bytes

    def launch(
        self,
        grid: tuple[int, int, int],
        threads: int,
        args: ctypes.Structure,
        *,
        early: bool = False,
    ) -> None:
        """Launch with `args` as the kernel's only parameter. Raises RuntimeError on failure.

        `early`: it may begin before the launch before it has ended, and waits for that itself
        (griddepcontrol, from compute capability 9.0 on).
        """
        if torch.cuda.current_device() != self._device:
            with torch.cuda.device(self._device):
                self.launch(grid, threads, args, early=early)
            return
        params = (ctypes.c_void_p * 1)(ctypes.addressof(args))
        stream = torch.cuda.current_stream().cuda_stream
        early = early and overlaps(self._device)
        config = _LaunchConfig(
            *grid, threads, 1, 1, self._shared_bytes, stream,
            ctypes.addressof(_EARLY) if early else None, int(early),
        )  # fmt: skip
        status = _driver().cuLaunchKernelEx(ctypes.byref(config), self._function, params, None)
        if status:
            raise RuntimeError(f"CUDA error {status} at the launch of a kernel")


@functools.cache
def available() -> bool:
    """Whether NVRTC and the CUDA driver can be loaded here."""
    if torch.version.cuda is None or not torch.cuda.is_available():
        return False
    try:
        _driver()
        _nvrtc()
    except OSError:
        return False
    return True


@functools.cache
def overlaps(device: int) -> bool:
    """Whether a launch can begin before the one before it has ended."""
    return torch.cuda.get_device_capability(device)[0] >= 9


@functools.cache
def shared_memory(device: int) -> int:
    """Bytes of shared memory a thread block of this device may have at most."""
    size = ctypes.c_int()
    status = _driver().cuDeviceGetAttribute(ctypes.byref(size), _SHARED_OPTIN, device)
    _check(status, "read a device's shared memory")
    return size.value


def compile_kernel(
    source: Path,
    name: str,
    constants: Mapping[str, int],
    device: int,
    shared_bytes: int,
    *,
    own: bool = False,
) -> Kernel:
    """Compile `source` with -D constants for a device and load its kernel `name`, once: the same
    call gives the same kernel at the cost of a look.

    The source may include the .cuh files beside it and those of the two folders above. `own` allows
    the instructions that only this generation of devices has (sm_90a: products of warpgroups).

    Raises MissingDependency without NVRTC, RuntimeError with the compiler's log.
    """
    return _loaded(source, name, tuple(constants.items()), device, shared_bytes, own)


@functools.cache
def _loaded(
    source: Path,
    name: str,
    constants: tuple[tuple[str, int], ...],
    device: int,
    shared_bytes: int,
    own: bool,
) -> Kernel:
    if not available():
        raise MissingDependency(
            "NVRTC, the CUDA compiler library, was not found",
            "install a CUDA build of torch: its wheel brings libnvrtc",
        )
    major, minor = torch.cuda.get_device_capability(device)
    options = [f"--gpu-architecture=sm_{major}{minor}{'a' if own else ''}", "--std=c++17"]
    options += [f"-D{key}={value}" for key, value in constants]
    cubin = _compile(source, options)
    driver = _driver()
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    with torch.cuda.device(device):
        torch.cuda.current_stream().synchronize()  # the primary context exists and is current
        _check(driver.cuModuleLoadData(ctypes.byref(module), cubin), "load a kernel")
    _check(
        driver.cuModuleGetFunction(ctypes.byref(function), module, name.encode()), "find a kernel"
    )
    status = driver.cuFuncSetAttribute(function, _MAX_DYNAMIC_SHARED, shared_bytes)
    _check(status, f"give a kernel {shared_bytes} bytes of shared memory")
    return Kernel(function, module, shared_bytes, device)


def _compile(source: Path, options: list[str]) -> bytes:
    nvrtc, name = _nvrtc(), source.name
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    headers = [h for place in source.parents[:3] for h in sorted(place.glob("*.cuh"))]
    strings = ctypes.c_char_p * len(headers)
    texts = strings(*(header.read_bytes() for header in headers))
    names = strings(*(header.name.encode() for header in headers))
    status = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source.read_bytes(), name.encode(), len(headers), texts, names
    )
    _check(status, "create an NVRTC program")
    encoded = [option.encode() for option in options]
    array = (ctypes.c_char_p * len(encoded))(*encoded)
    try:
        if nvrtc.nvrtcCompileProgram(program, len(encoded), array):
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            raise RuntimeError(f"{name} does not compile:\n{log.value.decode()}")
        _check(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)), "size a kernel")
        cubin = ctypes.create_string_buffer(size.value)
        _check(nvrtc.nvrtcGetCUBIN(program, cubin), "read a kernel")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return cubin.raw


def _check(status: int, what: str) -> None:
    if status:
        raise RuntimeError(f"CUDA could not {what} (error {status})")


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


@functools.cache
def _nvrtc() -> ctypes.CDLL:
    """The library torch was built with: loaded already, on the path, or in its wheel's folder."""
    major = (torch.version.cuda or "").split(".")[0]
    name = f"libnvrtc.so.{major}"
    packages = Path(torch.__file__).parents[1] / "nvidia"
    for place in (name, *map(str, sorted(packages.glob(f"*/lib/{name}")))):
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    raise OSError(f"{name} was not found")
