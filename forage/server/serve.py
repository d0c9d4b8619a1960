"""`forage serve`: an index folder over HTTP."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from forage.errors import ConfigError, MissingExtra, ServiceError
from forage.options import Setting
from forage.server.keeper import Opened
from forage.server.log import Log
from forage.server.worker import Work

NOTHING: Mapping[str, Setting] = MappingProxyType({})


def serve(told: Work, *, host: str = "127.0.0.1", port: int, insecure: bool = False) -> None:
    """Serve an index until SIGTERM or Ctrl-C.

    Args:
        told: how it is opened, how many workers there are, and what they take.
        host: address to listen on.
        port: 0 takes a free one; the log says which.
        insecure: listen where others can reach it, without a token.

    Raises:
        ConfigError: the address is not this machine's alone, and there is no token.
        ServiceError: the address can't be had, or the index can't be opened.
        MissingExtra: uvicorn is not installed.
    """
    try:
        import httptools  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "uvicorn", "server") from error
    from forage.server.supervisor import Supervisor

    check_exposure(host, told.token, insecure)
    log = Log()
    with listen(host, port) as listening:
        address, taken = listening.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        log("listening", url=f"http://{shown}:{taken}", workers=told.workers)
        Supervisor(told, listening, log).run()


def open_folder(folder: Path, options: Mapping[str, Setting] = NOTHING) -> Opened:
    """An index folder, opened with options (see `open_searcher`), which `GET /v1/info` tells.

    Raises:
        IndexFolderError: it is no whole index that fits.
        ConfigError: an option is unknown, or of another type.
    """
    import msgspec

    from forage.indexing.folder import read_info
    from forage.retrievers.rerank import open_searcher

    told = {"opened_with": {name: setting.value for name, setting in options.items()}} if options else {}
    info = msgspec.to_builtins(read_info(folder)) | told
    return Opened(open_searcher(folder, options), info, folder / "index.json")


def check_exposure(host: str, token: str, insecure: bool) -> None:
    """Refuse to serve others without a token.

    Raises:
        ConfigError: the address is not a loopback one, and there is neither token nor `insecure`.
    """
    if token or insecure or _is_loopback(host):
        return
    raise ConfigError(
        f"host = {host!r} can be reached from other machines: give a token (--token-env or --token-file), or say "
        "--insecure"
    )


def read_token(variable: str, file: Path | None, environment: Mapping[str, str] = os.environ) -> str:
    """The token from an environment variable or a file; empty where neither is named.

    Raises:
        ConfigError: both are named, or there is none where one is named.
    """
    if variable and file:
        raise ConfigError("the token comes from an environment variable or from a file, not from both")
    if variable:
        token = environment.get(variable, "").strip()
        where = f"the environment variable {variable}"
    elif file:
        token, where = file.read_text("utf-8").strip(), str(file)
    else:
        return ""
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigError(f"{where} holds no token: printable ASCII, on one line")
    return token


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ServiceError: the address is taken, or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except (OSError, OverflowError) as error:
        listening.close()
        raise ServiceError(f"can't listen on {host} port {port}: {getattr(error, 'strerror', error)}") from error
    listening.set_inheritable(True)
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
