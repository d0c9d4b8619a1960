"""The search services: how each is asked, and where in its answer the results stand. One row each.

Costs and how to get a key: docs/retrieval.md.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from forage.clients.service import Request
from forage.types import Passage


@dataclass(frozen=True, slots=True)
class Provider:
    """One service.

    `count` is the parameter that says how many results (empty: it has none), `most` how many one request gives, and
    `longest` how many characters of a query it takes. The key goes into `key_header`, behind `key_prefix`, or into the
    parameter `key_param`. `results` is the way to the list of results, `fields` are its names for title, URL and
    snippet. An answer without that list is one that found nothing where `genuine` (a way, and what stands there) holds,
    and else malformed. `needs` are further parameters, by the environment variable they are read from.
    """

    name: str
    documented: str
    url: str
    method: str
    query: str
    count: str
    most: int
    results: tuple[str, ...]
    fields: tuple[str, str, str]
    key_env: str = ""
    key_header: str = ""
    key_prefix: str = ""
    key_param: str = ""
    genuine: tuple[tuple[str, ...], str] | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
    paid: bool = True
    longest: int = 2000
    escaped: bool = False  # snippets are HTML: &amp; stands for &
    notes: Mapping[int, str] = field(default_factory=dict)  # what a status means here

    def request(self, url: str, query: str, k: int, key: str, more: Mapping[str, Any]) -> Request:
        """What to send for a query."""
        said = {**self.fixed, **more, self.query: shortened(query, self.longest)}
        if self.count:
            said[self.count] = max(k, min(10, self.most))  # ten cost what one costs, and serve every smaller k
        headers = {"Accept": "application/json"}
        if self.key_header and key:
            headers[self.key_header] = f"{self.key_prefix}{key}"
        if self.method == "POST":
            return Request("POST", url, json=said, headers=headers)
        return Request("GET", url, params=said | ({self.key_param: key} if self.key_param else {}), headers=headers)

    def read(self, body: bytes) -> list[Passage]:
        """The results of an answer, best first; their id is the URL. A result without a URL, or of a URL that stood
        before, is left out.

        Raises:
            ValueError, LookupError, TypeError: the answer is not as documented.
        """
        answer = json.loads(body)
        try:
            rows = at(answer, self.results)
        except KeyError:
            if self.genuine is None or at(answer, self.genuine[0]) != self.genuine[1]:
                raise
            rows = []
        if not isinstance(rows, list):
            raise TypeError("no list of results")
        found: dict[str, Passage] = {}
        for row in rows:
            if not isinstance(row, dict):
                raise TypeError("a result that is no object")
            title, url, snippet = (self._text(row.get(name) or "") for name in self.fields)
            if url and url not in found:
                found[url] = Passage(url, title, snippet, 1 / (len(found) + 1))
        return list(found.values())

    def _text(self, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError("a text that is none")
        return html.unescape(value) if self.escaped else value


def at(answer: Any, way: tuple[str, ...]) -> Any:
    """What stands at the end of a way of names.

    Raises:
        KeyError: there is no such way.
        TypeError: something on it is no object.
    """
    for name in way:
        if not isinstance(answer, dict):
            raise TypeError("no object")
        answer = answer[name]
    return answer


def shortened(query: str, longest: int) -> str:
    """The query, cut behind a word where it is longer than a service takes."""
    if len(query) <= longest:
        return query
    return query[:longest].rpartition(" ")[0] or query[:longest]


_ROWS = (
    Provider(
        name="serper",
        documented="https://serper.dev/playground",
        url="https://google.serper.dev/search",
        method="POST",
        query="q",
        count="num",
        most=10,  # more of them cost a second credit
        results=("organic",),
        fields=("title", "link", "snippet"),
        key_env="SERPER_API_KEY",
        key_header="X-API-KEY",
        genuine=(("searchParameters", "type"), "search"),
    ),
    Provider(
        name="serpapi",
        documented="https://serpapi.com/search-api, https://serpapi.com/api-status-and-error-codes",
        url="https://serpapi.com/search.json",
        method="GET",
        query="q",
        count="",
        most=10,
        results=("organic_results",),
        fields=("title", "link", "snippet"),
        key_env="SERPAPI_API_KEY",
        key_param="api_key",
        genuine=(("search_metadata", "status"), "Success"),
        fixed={"engine": "google"},
    ),
    Provider(
        name="brave",
        documented="https://api-dashboard.search.brave.com/api-reference/web/search/get",
        url="https://api.search.brave.com/res/v1/web/search",
        method="GET",
        query="q",
        count="count",
        most=20,
        results=("web", "results"),
        fields=("title", "url", "description"),
        key_env="BRAVE_SEARCH_API_KEY",
        key_header="X-Subscription-Token",
        genuine=(("type",), "search"),
        fixed={"text_decorations": "false"},
        longest=400,
        escaped=True,
    ),
    Provider(
        name="tavily",
        documented="https://docs.tavily.com/documentation/api-reference/endpoint/search",
        url="https://api.tavily.com/search",
        method="POST",
        query="query",
        count="max_results",
        most=20,
        results=("results",),
        fields=("title", "url", "content"),
        key_env="TAVILY_API_KEY",
        key_header="Authorization",
        key_prefix="Bearer ",
        longest=400,
        notes={432: "the plan's limit is used up", 433: "the pay-as-you-go limit is used up"},
    ),
    Provider(
        name="google_cse",
        documented="https://developers.google.com/custom-search/v1/reference/rest/v1/cse/list",
        url="https://www.googleapis.com/customsearch/v1",
        method="GET",
        query="q",
        count="num",
        most=10,
        results=("items",),
        fields=("title", "link", "snippet"),
        key_env="GOOGLE_API_KEY",
        key_param="key",
        genuine=(("kind",), "customsearch#search"),
        needs={"cx": "GOOGLE_CSE_ID"},
    ),
    Provider(
        name="bing",
        documented="https://learn.microsoft.com/bing/search-apis/bing-web-search/reference/response-objects",
        url="",  # the service itself was closed in August 2025; others speak its protocol
        method="GET",
        query="q",
        count="count",
        most=50,
        results=("webPages", "value"),
        fields=("name", "url", "snippet"),
        key_env="BING_SEARCH_API_KEY",
        key_header="Ocp-Apim-Subscription-Key",
        genuine=(("_type",), "SearchResponse"),
        longest=1400,
    ),
    Provider(
        name="searxng",
        documented="https://docs.searxng.org/dev/search_api.html",
        url="",
        method="GET",
        query="q",
        count="",
        most=10,
        results=("results",),
        fields=("title", "url", "content"),
        fixed={"format": "json"},
        paid=False,
        notes={403: "refused; does search.formats in its settings.yml hold json?"},
    ),
)

PROVIDERS = {provider.name: provider for provider in _ROWS}
