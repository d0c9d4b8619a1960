"""The web as a search engine: a provider finds pages, their snippets or texts are the passages."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from msgspec import Meta

from forage.clients.kept import Kept
from forage.clients.pace import Pace
from forage.clients.service import Service, Sleep, check_url, encodable
from forage.errors import BudgetError, ConfigError, RetrieverError, ServiceError
from forage.retrievers.web.addresses import Resolve, resolve
from forage.retrievers.web.fetch import Fetcher, Limits, NoPage
from forage.retrievers.web.providers import PROVIDERS, Provider
from forage.retrievers.web.reading import best, check_reader, text_of
from forage.types import Passage

log = logging.getLogger(__name__)

PAID_BUDGET = 1000
MEANINGS = {
    401: "the key was refused",
    402: "the quota is used up",
    403: "the key was refused",
    429: "too many requests, or the quota is used up",
}
NOTHING: Mapping[str, Any] = MappingProxyType({})
Name = Literal["serper", "serpapi", "brave", "tavily", "google_cse", "bing", "searxng"]
Outcome = list[Passage] | RetrieverError


class WebSearch:
    """Searches the web. A passage is a result's title and snippet, or what its page says on the query (`fetch`).

    What was found is kept in `cache_file`, so that nothing is asked and paid for twice, and a run can be repeated
    without the web (`offline`). The requests sent are counted there too, over all runs that share the file.

    Args:
        provider: serper, serpapi, brave, tavily, google_cse, bing (services that speak its protocol), or searxng.
        url: where the provider is asked; empty: its own address (bing and searxng have none).
        api_key_env: environment variable that holds the key; empty: the provider's usual one (docs/retrieval.md). The
            key itself is written nowhere.
        request: further parameters of each request, such as `{gl = "no"}` or `{search_depth = "advanced"}`.
        budget: requests that may be sent, retries included, over all runs that share `cache_file`; then the run stops.
            Not set: 1000, and no limit for searxng, which costs nothing.
        queries_per_s: requests a second; 0: no limit.
        concurrency: requests at a time, and pages at a time.
        request_timeout_s: seconds that one request may take.
        retries: further tries after connection errors, timeouts, 429 and 5xx, with growing waits.
        cache_file: SQLite file of what was found and of what was spent; empty: kept in memory, for this process alone.
        offline: answer from `cache_file` alone; what is not there is a failed search.
        fetch: read the pages, in place of snippets (extra: web). A page that can't be had leaves its snippet.
        page_words: words of a page that become its passage: the chunk that matches the query best.
        page_timeout_s: seconds that one page may take, redirects and robots.txt included.
        page_bytes: of a page; larger ones are not read.
        page_redirects: redirects followed to a page.
        robots: leave out pages that their host's robots.txt forbids.
        allow_hosts: hosts, or `host:port`, that pages may be fetched from although their addresses are not public.

    Raises:
        ConfigError: a setting is not usable, or a key is not in the environment.
        BudgetError: from `search`: the budget is spent.
        MissingExtra: httpx2, or with `fetch` trafilatura, is not installed.
    """

    bounds_itself = True  # each request has its timeout, and waits for its turn

    def __init__(
        self,
        passages: Iterable[Passage] = (),
        environment: Mapping[str, str] = os.environ,
        sleep: Sleep = asyncio.sleep,
        resolver: Resolve = resolve,
        *,
        provider: Name,
        url: str = "",
        api_key_env: str = "",
        request: Mapping[str, Any] = NOTHING,
        budget: Annotated[int, Meta(ge=0)] | None = None,
        queries_per_s: Annotated[float, Meta(ge=0)] = 5.0,
        concurrency: Annotated[int, Meta(ge=1)] = 8,
        request_timeout_s: Annotated[float, Meta(gt=0)] = 20.0,
        retries: Annotated[int, Meta(ge=0)] = 4,
        cache_file: str = "runs/web.sqlite",
        offline: bool = False,
        fetch: bool = False,
        page_words: Annotated[int, Meta(ge=1)] = 100,
        page_timeout_s: Annotated[float, Meta(gt=0)] = 20.0,
        page_bytes: Annotated[int, Meta(ge=1)] = 2_000_000,
        page_redirects: Annotated[int, Meta(ge=0)] = 5,
        robots: bool = True,
        allow_hosts: tuple[str, ...] = (),
    ) -> None:
        del passages
        self._provider = PROVIDERS[provider]
        self._url = _url(self._provider, url)
        self._more = _more(self._provider, request, environment)
        self._key = "" if offline else _key(self._provider, api_key_env, environment)
        if offline and not Path(cache_file).is_file():
            raise ConfigError(f"search.offline: there is no file search.cache_file = {cache_file!r} to answer from")
        if allow_hosts and not fetch:
            raise ConfigError("search.allow_hosts does nothing without search.fetch=true")
        self._kept = Kept(Path(cache_file) if cache_file else None)
        self._budget = PAID_BUDGET if budget is None and self._provider.paid else budget
        self._pace = Pace(queries_per_s, sleep)
        self._service = Service(
            extra="web",
            secrets=[self._key],
            timeout_s=request_timeout_s,
            retries=retries,
            concurrency=concurrency,
            max_bytes=16 * 2**20,
            before=self._spend,
            sleep=sleep,
        )
        self._offline, self._page_words, self._concurrency = offline, page_words, concurrency
        limits = Limits(page_timeout_s, page_bytes, page_redirects, robots)
        self._fetcher = Fetcher(limits, allow_hosts, resolver) if fetch else None
        self._page_kind = f"page {page_bytes} {page_redirects} {robots}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pages: asyncio.Semaphore
        if fetch:
            check_reader()

    @property
    def spent(self) -> int:
        """Requests sent to the provider so far, by all runs that share the cache's file."""
        return self._kept.spent(self._provider.name)

    async def search(self, queries: Sequence[str], k: int) -> list[Outcome]:
        """One outcome a query; up to k passages, best first. What was found before the budget was spent is kept.

        Raises:
            BudgetError: the budget is spent.
            ConfigError: k is more than the provider gives.
        """
        if k > self._provider.most:
            raise ConfigError(f"search.k = {k}, but {self._provider.name} gives {self._provider.most} results a query")
        outcomes = await asyncio.gather(*(self._outcome(encodable(" ".join(query.split())), k) for query in queries))
        if spent := [outcome for outcome in outcomes if isinstance(outcome, BudgetError)]:
            raise spent[0]
        return [outcome for outcome in outcomes if not isinstance(outcome, BudgetError)]

    async def _outcome(self, query: str, k: int) -> Outcome | BudgetError:
        if not query:
            return []
        try:
            results = await self._results(query, k)
            if not self._fetcher:
                return [result for result in results if result.text][:k]
            read = await asyncio.gather(*(self._read(self._fetcher, query, result) for result in results[:k]))
            return [passage for passage in read if passage.text]
        except ServiceError as error:
            return self._failure(query, error)
        except (RetrieverError, BudgetError) as outcome:
            return outcome

    async def _results(self, query: str, k: int) -> list[Passage]:
        """What the provider finds, remembered or asked for."""
        asked = self._provider.request(self._url, query, k, "", self._more)
        kind = json.dumps([self._provider.name, self._url, asked.json or dict(asked.params)], sort_keys=True)
        if (known := self._kept.get(kind, query)) is not None:
            return [Passage(*row) for row in json.loads(known)]
        if self._offline:
            raise RetrieverError(f"{self._provider.name}: {query!r} is not in the cache, and search.offline is set")
        request = self._provider.request(self._url, query, k, self._key, self._more)
        found = await self._service.ask(request, self._provider.read, f"answer of {self._provider.name}")
        self._kept.put(kind, query, json.dumps([[p.id, p.title, p.text, p.score] for p in found]))
        return found

    async def _spend(self) -> None:
        """Wait for a turn, and count the request.

        Raises:
            BudgetError: it would be one too many.
        """
        await self._pace.wait()
        if not self._kept.spend(self._provider.name, self._budget):
            raise BudgetError(
                f"search.budget = {self._budget}: that many requests to {self._provider.name} were sent. What they "
                "found is kept; raise search.budget to send more, or set search.offline=true to send none"
            )
        if self._budget and self.spent in {self._budget // 2, self._budget * 9 // 10}:
            log.warning("%s: %d of %d requests are spent", self._provider.name, self.spent, self._budget)

    def _failure(self, query: str, error: ServiceError) -> RetrieverError:
        meaning = (MEANINGS | dict(self._provider.notes)).get(error.status or 0, "no usable answer")
        failure = RetrieverError(f"the search for {query[:200]!r} failed at {self._provider.name}: {meaning}: {error}")
        failure.__cause__ = error
        return failure

    async def _read(self, fetcher: Fetcher, query: str, result: Passage) -> Passage:
        """A result with what its page says on the query; as it is where the page can't be had."""
        if text := await self._page(fetcher, result.id):
            chosen = await asyncio.to_thread(best, text, query, self._page_words)
            return Passage(result.id, result.title, chosen, result.score)
        return result

    async def _page(self, fetcher: Fetcher, url: str) -> str:
        """What a page says; empty where it can't be had."""
        if (known := self._kept.get(self._page_kind, url)) is not None:
            return known
        if self._offline:
            return ""
        try:
            async with self._turn():
                text = await asyncio.to_thread(text_of, await fetcher.fetch(url))
        except NoPage as error:
            log.info("a page of %s is left out: %s", url[:200], error)
            if not error.for_good:
                return ""
            text = ""
        self._kept.put(self._page_kind, url, encodable(text))
        return text

    def _turn(self) -> asyncio.Semaphore:
        """So many pages at a time, in the loop that runs now."""
        if self._loop is not (loop := asyncio.get_running_loop()):
            self._loop, self._pages = loop, asyncio.Semaphore(self._concurrency)
        return self._pages


def _url(provider: Provider, url: str) -> str:
    if not url and not provider.url:
        raise ConfigError(f"search.url is missing: {provider.name} has no address of its own")
    if not url:
        return provider.url
    return check_url(url, "search.url", "https://search.example.org/search", "search.api_key_env and search.request")


def _key(provider: Provider, variable: str, environment: Mapping[str, str]) -> str:
    """The key.

    Raises:
        ConfigError: there is none, and the provider needs one; or one is given that it has no place for.
    """
    if not provider.key_env:
        if variable:
            raise ConfigError(f"search.api_key_env does nothing: {provider.name} takes no key")
        return ""
    name = variable or provider.key_env
    key = environment.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"search.provider = {provider.name!r} needs its key in the environment variable {name}, which is not set, "
            "or empty (another variable: search.api_key_env)"
        )
    return key


def _more(provider: Provider, request: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The further parameters, with those that are read from the environment.

    Raises:
        ConfigError: one is Forage's to set, a text is none, or one that is needed is missing.
    """
    own = {provider.query, provider.count, provider.key_param} - {""}
    if taken := own & set(request):
        raise ConfigError(f"search.request: {sorted(taken)[0]!r} is set by Forage")
    found = dict(request)
    for name, variable in provider.needs.items():
        value = found.get(name) or environment.get(variable, "").strip()
        if not value:
            raise ConfigError(
                f"search.provider = {provider.name!r} needs {name}: set {variable} or search.request.{name}"
            )
        found[name] = value
    return found
