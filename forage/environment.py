"""What a run ran on: versions, commit, processor, memory, command line. Written as environment.json."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("forage-rl", "torch", "transformers", "tokenizers", "safetensors", "numpy", "bm25s", "PyStemmer", "msgspec")
OPTIONAL = ("numba",)
"""What a run's numbers depend on where it is installed."""


def describe_environment(seed: int | None = None) -> dict[str, Any]:
    """Everything that a result depends on besides its configuration. Imports torch."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "seed": seed,
        "commit": commit(Path(__file__).parent.parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: installed(name) for name in (*PACKAGES, *OPTIONAL)},
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_gb": round(memory_bytes() / 2**30, 1),
        "torch": torch_build(),
    }


def installed(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit(folder: Path) -> str | None:
    """The commit of a git checkout, with `+changes` where files differ from it; None where `folder` is none."""
    if not (folder / ".git").exists():
        return None
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    lines = _cpuinfo()
    if names := [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]:
        return names[0]
    return platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Instruction sets of the processor, by the names of Linux; empty elsewhere."""
    flags = [line.partition(":")[2] for line in _cpuinfo() if line.startswith(("flags", "Features"))]
    return frozenset(flags[0].split()) if flags else frozenset()


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Main memory of the machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def torch_build() -> dict[str, Any]:
    """Version, CUDA, GPU and threads of torch."""
    import torch

    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }
