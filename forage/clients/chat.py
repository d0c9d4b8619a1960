"""Chat completions over HTTP, from any server that speaks OpenAI's protocol (vLLM, SGLang, hosted models)."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

from forage.clients.service import Request, Service, Sleep, check_url, encodable, key_of


class ChatClient:
    """One message to a model, its reply back; bounded and tried again as `Service` says.

    Args:
        url: up to the version, such as `https://api.openai.com/v1`; `/chat/completions` is added.
        model: name of the model there.
        api_key_env: environment variable that holds the key; empty: none is sent.
        timeout_s: seconds that one request may take.
        retries: further tries after the first.
        concurrency: requests at a time.
        request: further fields of each request, such as `{temperature = 0}`.
        environment: where the key is looked up.
        sleep: waits between tries.

    Raises:
        ConfigError: the key's variable is not set, or the URL is none, or holds a name or password.
        MissingExtra: httpx2 is not installed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key_env: str = "",
        timeout_s: float = 60.0,
        retries: int = 5,
        concurrency: int = 32,
        request: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] = os.environ,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.url = f"{check_url(url, 'url', 'https://api.openai.com/v1', 'api_key_env')}/chat/completions"
        key = key_of(api_key_env, environment)
        self._body = {**(request or {}), "model": model}
        self._service = Service(
            extra="judge",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            secrets=[key],
            timeout_s=timeout_s,
            retries=retries,
            concurrency=concurrency,
            sleep=sleep,
        )

    async def ask(self, prompt: str) -> str:
        """The model's reply to one user message.

        Raises:
            ServiceError: no reply after all tries; names the URL and the last cause, never the key.
        """
        body = self._body | {"messages": [{"role": "user", "content": encodable(prompt)}]}
        return await self._service.ask(Request("POST", self.url, json=body), _content, "chat completion")


def _content(body: bytes) -> str:
    """The reply's text.

    Raises:
        ValueError, LookupError, TypeError: there is none.
    """
    content = json.loads(body)["choices"][0]["message"]["content"]
    if not isinstance(content, str):
        raise TypeError(f"content is {content!r}")
    return content
