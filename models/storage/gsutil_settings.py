"""What the configuration and the environment of gsutil say about its retries and its proxy."""

import configparser
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

_PROXIES = ("http_proxy", "https_proxy", "HTTPS_PROXY")
"""Environment variables, in the order in which gsutil asks them, whatever the protocol."""


@dataclass(frozen=True)
class GsutilSettings:
    """The settings that decide how long gsutil tries, and through what."""

    has_retries: bool = False
    """Whether the configuration says how often a request is repeated."""
    proxy: str | None = None
    """`host:port (where it is set)`, without credentials."""

    @property
    def through(self) -> str:
        """What messages say about the proxy through which a store could not be reached: a sentence, or nothing."""
        return f" The proxy is {self.proxy}." if self.proxy else ""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Return what applies in this environment; a file that cannot be read says nothing."""
        name = "BOTO_CONFIG" if "BOTO_CONFIG" in environment else "BOTO_PATH"
        boto = configparser.RawConfigParser(strict=False)
        for path in environment.get(name, "").split(os.pathsep if name == "BOTO_PATH" else "\0"):
            with suppress(OSError, UnicodeError, configparser.Error):
                boto.read(os.path.expanduser(path))  # noqa: PTH111 - any text
        host, port = (boto.get("Boto", one, fallback="") for one in ("proxy", "proxy_port"))
        proxy = f"{host}:{port} ({name})" if host and port else _of_environment(environment)
        return cls(boto.has_option("Boto", "num_retries"), proxy)


def _of_environment(environment: Mapping[str, str]) -> str | None:
    for name in _PROXIES:
        if value := environment.get(name):
            return f"{urlsplit(value if '://' in value else f'//{value}').netloc.rpartition('@')[2]} ({name})"
    return None
