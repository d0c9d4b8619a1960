"""`forage doctor`: is this machine ready, and what would make it faster."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from forage import environment

EXTRAS = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "judge": "httpx2",
    "server": "uvicorn",
    "http": "aiohttp",
    "web": "trafilatura",
    "dense": "faiss",
    "fast": "numba",
}
"""Extra -> the module that it brings."""
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "neon", "asimd", "sve")
FREE_GB = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what was found, and what to do where it is not well."""

    name: str
    found: str
    ok: bool = True
    todo: str = ""


def check(folder: Path = Path()) -> dict[str, Any]:
    """Look at versions, processor, memory, disk, torch, extras and the packaged model, and compute something.

    Returns:
        `ok`, whether Forage can run here, and `findings`: name, found, ok, todo.
    """
    findings = [*_software(), *_machine(folder), *_torch(), *_extras()]
    return {"ok": all(finding.ok for finding in findings), "findings": [asdict(finding) for finding in findings]}


def _software() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", python, sys.version_info >= (3, 11), "" if sys.version_info >= (3, 11) else "use 3.11+")
    for package in environment.PACKAGES:
        version = environment.installed(package)
        yield Finding(package, version or "missing", bool(version), "" if version else f"pip install {package}")
    model = files("forage") / "assets" / "tiny" / "config.json"
    yield Finding("packaged model", "present" if model.is_file() else "missing", model.is_file(), _missing_model(model))


def _missing_model(model: Any) -> str:
    return "" if model.is_file() else "install Forage again, or make it: forage sft warm-start"


def _machine(folder: Path) -> Iterator[Finding]:
    flags = environment.cpu_flags()
    features = [name for name in CPU_FEATURES if name in flags]
    yield Finding("cpu", f"{environment.cpu_model()}, {environment.usable_cores()} cores")
    yield Finding("cpu features", " ".join(features) or "unknown", todo=_bfloat16(features))
    yield Finding("memory", f"{environment.memory_bytes() / 2**30:.1f} GB")
    free = shutil.disk_usage(folder).free / 2**30
    yield Finding("disk", f"{free:.1f} GB free in {folder.resolve()}", free >= FREE_GB, _disk(free))


def _bfloat16(features: list[str]) -> str:
    return "" if {"amx_bf16", "avx512_bf16"} & set(features) else "engine.dtype=float32 is the faster one here"


def _disk(free: float) -> str:
    return "" if free >= FREE_GB else f"less than {FREE_GB} GB: free some, or set run.dir to another disk"


def _torch() -> Iterator[Finding]:
    if not environment.installed("torch"):
        return
    build = environment.torch_build()
    device = build["gpu"] or "cpu"
    yield Finding("device", f"{device}, torch {build['version']}, {build['threads']} threads")
    yield Finding("self-check", *_self_check())


def _self_check() -> tuple[str, bool]:
    """The speed of products of matrices, and whether they are right."""
    import torch

    a = torch.eye(512) * 2
    products, started = 0, time.perf_counter()
    while time.perf_counter() - started < 0.5:
        result = a @ a
        products += 1
    speed = 2 * 512**3 * products / (time.perf_counter() - started) / 1e9
    return f"{speed:.0f} GFLOP/s in float32", bool(torch.equal(result, torch.eye(512) * 4))


def _extras() -> Iterator[Finding]:
    for extra, module in EXTRAS.items():
        there = find_spec(module) is not None
        yield Finding(
            f"extra {extra}",
            "installed" if there else "not installed",
            todo="" if there else f"optional: pip install 'forage-rl[{extra}]'",
        )
