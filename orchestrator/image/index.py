"""Where packages come from on this machine: index, find-links, certificates, as pip and uv are configured here.

It reads pip's configuration files and the PIP_*, UV_* and proxy variables; it knows nothing of images.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

# Options that say where packages come from or how they are fetched. Others (target, user, …) say where they go.
LISTS = ("extra-index-url", "find-links", "trusted-host")
PASSED = ("proxy", "timeout", "retries", "only-binary", "no-binary", "prefer-binary")
CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True, slots=True)
class PackageIndex:
    """Settings as an installer needs them. May hold credentials: never print, log or store one.

    index: the main index's URL, "" for the installer's default. certificate: path of a PEM bundle, "" for the
    installer's own. options: further pip options that are passed as they are. proxies: variables and their values.
    """

    index: str = ""
    extra: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()
    no_index: bool = False
    certificate: str = ""
    options: tuple[tuple[str, str], ...] = ()
    proxies: tuple[tuple[str, str], ...] = ()

    def folders(self) -> tuple[str, ...]:
        """Folders of this machine that the settings point to: local find-links and what file:// indexes link to.

        An index's pages link to files beside its root (`../../files/…`), so its parent is what must be reachable.
        """
        found = [local for link in self.find_links if (local := local_path(link))]
        found += [os.path.dirname(local) for url in (self.index, *self.extra) if (local := local_path(url))]
        return tuple(dict.fromkeys(folder for folder in found if os.path.isdir(folder)))

    def moved(self, urls: Mapping[str, str]) -> PackageIndex:
        """The same settings with folders (see `folders`) replaced by the URLs at which they can be reached."""

        def there(link: str) -> str:
            local = local_path(link)
            for folder, url in urls.items():
                if local == folder or local.startswith(folder + "/"):
                    return url.rstrip("/") + local.removeprefix(folder) + "/"
            return link

        return replace(
            self,
            index=there(self.index),
            extra=tuple(there(url) for url in self.extra),
            find_links=tuple(there(link) for link in self.find_links),
        )

    def pip_conf(self) -> str:
        """A configuration file for pip, certificate left out (its path differs where the file is read)."""
        values: dict[str, str] = dict(self.options)
        if self.index:
            values["index-url"] = self.index
        if self.no_index:
            values["no-index"] = "true"
        for key, items in zip(LISTS, (self.extra, self.find_links, self.trusted), strict=True):
            if items:
                values[key] = "".join(f"\n    {item}" for item in items)
        return "[global]\n" + "".join(f"{key} = {values[key]}\n" for key in sorted(values))


def local_path(link: str) -> str:
    """The absolute path that a link or path means, without a trailing slash; "" for anything remote."""
    if link.startswith("file:"):
        return unquote(urlsplit(link).path).rstrip("/")
    return "" if not link or "://" in link else os.path.abspath(os.path.expanduser(link))


def read(environ: Mapping[str, str] = os.environ) -> PackageIndex:
    """The settings in force for this user. pip's win over uv's; a variable wins over a file.

    Files and precedence: https://pip.pypa.io/en/stable/topics/configuration/
    """
    values: dict[str, str] = {}
    for path in _files(environ):
        values |= _file(path)
    values |= {
        key.removeprefix("PIP_").lower().replace("_", "-"): value
        for key, value in environ.items()
        if key.startswith("PIP_") and value
    }
    certificate = values.get("cert", "") or _first(environ, CERTIFICATES)
    return PackageIndex(
        index=values.get("index-url", "") or _first(environ, ("UV_DEFAULT_INDEX", "UV_INDEX_URL")),
        extra=_items(values.get("extra-index-url"), environ.get("UV_INDEX"), environ.get("UV_EXTRA_INDEX_URL")),
        find_links=_items(values.get("find-links"), environ.get("UV_FIND_LINKS", "").replace(",", " ")),
        trusted=_items(values.get("trusted-host"), environ.get("UV_INSECURE_HOST")),
        no_index=values.get("no-index", "").lower() in {"1", "true", "yes", "on"},
        certificate=certificate if os.path.isfile(certificate) else "",
        options=tuple((key, values[key]) for key in PASSED if key in values),
        proxies=tuple((key, environ[key]) for key in PROXIES if environ.get(key)),
    )


def _files(environ: Mapping[str, str]) -> list[str]:
    home = environ.get("HOME") or os.path.expanduser("~")
    user = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    system = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    return [
        *(os.path.join(folder, "pip", "pip.conf") for folder in reversed(system)),
        "/etc/pip.conf",
        *([] if named else [os.path.join(home, ".pip", "pip.conf"), os.path.join(user, "pip", "pip.conf")]),
        os.path.join(sys.prefix, "pip.conf"),
        *([named] if named else []),
    ]


def _file(path: str) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return {}  # pip itself says what is wrong with it, when it is run
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found |= {key.replace("_", "-"): value.strip() for key, value in parser.items(section)}
    return found


def _first(environ: Mapping[str, str], names: Iterable[str]) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")


def _items(*values: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for value in values if value for item in value.split()))
