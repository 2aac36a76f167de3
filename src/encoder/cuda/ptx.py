"""Compiles kernels.cu to kernels.sm_61.ptx and kernels.sm_80.ptx, which are committed.

    python3 -m venv VENV && VENV/bin/pip install nvidia-cuda-nvrtc-cu11==11.8.89
    VENV/bin/python src/encoder/cuda/ptx.py [PTXAS]

No GPU and no CUDA toolkit are needed. The driver compiles PTX for its GPU when it loads it, so two
files serve everything from Pascal (dot products of bytes) and from Ampere (matrix units; Orin is 8.7)
on. They are marked as PTX 7.4, which is CUDA 11.4, which is JetPack 5: what the compiler writes needs
no later one. A PTXAS of any version, if it is given, checks that, as the driver of every board does.
"""

import ctypes
import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PTX_VERSION = "7.4"
OPTIONS = ["--std=c++14", "--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false"]


def library() -> ctypes.CDLL:
    for folder in map(Path, sys.path):
        for found in folder.glob("nvidia/cuda_nvrtc/lib/libnvrtc.so.11*"):
            return ctypes.CDLL(str(found))
    sys.exit("no libnvrtc 11: pip install nvidia-cuda-nvrtc-cu11==11.8.89")


def compile_ptx(nvrtc: ctypes.CDLL, source: bytes, architecture: int) -> str:
    program = ctypes.c_void_p()
    made = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None)
    assert made == 0, made
    options = [f"--gpu-architecture=compute_{architecture}", *OPTIONS]
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), array)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    print(log.value.decode(), end="", file=sys.stderr)
    if failed:
        sys.exit(f"compute_{architecture} does not compile")
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, text)
    return text.value.decode()


def main() -> None:
    nvrtc = library()
    source = (HERE / "kernels.cu").read_bytes()
    # Of the options, too.
    digest = hashlib.sha256(source + Path(__file__).read_bytes()).hexdigest()
    for architecture in [61, 80]:
        ptx = compile_ptx(nvrtc, source, architecture)
        ptx = re.sub(r"^\.version .*$", f".version {PTX_VERSION}", ptx, flags=re.MULTILINE)
        ptx = re.sub(r"^//.*\n|^\n", "", ptx, flags=re.MULTILINE)
        ptx = f"// sha256 of kernels.cu and ptx.py, which compiled it: {digest}\n{ptx}"
        (HERE / f"kernels.sm_{architecture}.ptx").write_text(ptx)
        for ptxas in sys.argv[1:]:
            # Those of CUDA 13 know nothing before Turing.
            target = max(architecture, 75)
            with tempfile.NamedTemporaryFile(suffix=".ptx", mode="w") as file:
                file.write(ptx)
                file.flush()
                command = [ptxas, f"-arch=sm_{target}", "-v", file.name, "-o", "/dev/null"]
                subprocess.run(command, check=True)


main()
