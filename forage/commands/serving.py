"""The command that serves an index over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forage.commands.words import Opening
from forage.server.limits import LIMITS, Limits


def serve(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="A folder that `forage index` made.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one, and the log names it.")],
    options: Opening = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    workers: Annotated[int, typer.Option(min=1, help="Processes; they share the index's pages.")] = 1,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Passages, where a request names no number.")] = LIMITS.k,
    max_k: Annotated[int, typer.Option(min=1, help="Passages a query, at most.")] = LIMITS.max_k,
    max_queries: Annotated[int, typer.Option(min=1, help="Queries a request, at most.")] = LIMITS.max_queries,
    max_query_chars: Annotated[int, typer.Option(min=1, help="Longest query, characters.")] = LIMITS.max_query_chars,
    max_request_bytes: Annotated[int, typer.Option(min=1, help="Largest request, bytes.")] = LIMITS.max_request_bytes,
    max_queue: Annotated[int, typer.Option(min=1, help="Queries of a worker that may wait.")] = LIMITS.max_queue,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds from a request to its answer.")] = LIMITS.answer_s,
    grace: Annotated[
        float, typer.Option(min=0.001, help="Seconds to end what is in flight when stopped.")
    ] = LIMITS.grace_s,
    cache_mb: Annotated[int, typer.Option(min=0, help="MB of answers a worker remembers; 0: none.")] = LIMITS.cache_mb,
    token_env: Annotated[str, typer.Option(metavar="NAME", help="Environment variable with the clients' token.")] = "",
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="File with the clients' token.")] = None,
    log_requests: Annotated[bool, typer.Option("--log-requests", help="Log every request, too.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen for other machines without a token.")] = False,
) -> None:
    """Serve an index over HTTP, to Forage and to clients of Search-R1's server.

    \b
      forage serve indexes/wiki --port 8000 --workers 2
      forage serve indexes/wiki --port 8000 reranker.path=models/reranker
      forage train qwen2.5-3b-grpo search=http search.url=http://127.0.0.1:8000

    GET /health answers 200 when it is ready, GET /metrics is for Prometheus, GET /openapi.json describes it.
    """
    from functools import partial

    from forage.indexing.build import command_line_options
    from forage.server.serve import open_folder, read_token
    from forage.server.serve import serve as run_service
    from forage.server.worker import Work

    limits = Limits(
        k=k,
        max_k=max_k,
        max_queries=max_queries,
        max_query_chars=max_query_chars,
        max_request_bytes=max_request_bytes,
        max_queue=max_queue,
        answer_s=timeout,
        grace_s=grace,
        cache_mb=cache_mb,
    )
    token = read_token(token_env, token_file)
    work = Work(partial(open_folder, index, command_line_options(options or [])), limits, token, log_requests, workers)
    run_service(work, host=host, port=port, insecure=insecure)
