"""The user's credentials, from where each service's own tools look for them. They are never printed, written or part of a config.

A login from the environment or from kaggle.json goes to its owner's server alone; the server of a mirror has its own entry in
~/.netrc. Over http, which anyone on the way can read, none is sent but to this machine itself.
"""

import json
import netrc
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from medmim.common.errors import UserError

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Login:
    """A name and a password, or a token under no name, and where they were found."""

    name: str = field(repr=False)
    password: str = field(repr=False)
    where: str


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL: what a login is for."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80)


def may_go_to(url: str) -> bool:
    """Whether a login may be sent over this URL's scheme."""
    return url.startswith("https://") or urlsplit(url).hostname in LOOPBACK


def of_netrc(url: str) -> Login | None:
    """The login of a server in $NETRC, ~/.netrc or ~/_netrc. Raises UserError where the file can't be read."""
    host = urlsplit(url).hostname or ""
    places = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for place in places:
        if not place.is_file():
            continue
        try:
            found = netrc.netrc(place).hosts.get(host)  # not its `default`, which is for every server
        except netrc.NetrcParseError as error:
            raise UserError(f"{place}, line {error.lineno}: can't be read as netrc") from None
        except OSError as error:
            raise UserError(f"{place}: {error.strerror}") from None
        if found:
            return Login(found[0], found[2] or "", f"{place}")
    return None


def _of_environment(name: str, password: str, environment: Mapping[str, str]) -> Login | None:
    if environment.get(name) and environment.get(password):
        return Login(environment[name], environment[password], f"{name} and {password}")
    return None


def _owners(url: str, host: str) -> bool:
    return urlsplit(url).hostname in (host, f"www.{host}", *LOOPBACK)


def physionet(url: str) -> Login | None:
    """PHYSIONET_USERNAME and PHYSIONET_PASSWORD, as PhysioNet's own client has them, or .netrc."""
    own = _of_environment("PHYSIONET_USERNAME", "PHYSIONET_PASSWORD", os.environ) if _owners(url, "physionet.org") else None
    return own or of_netrc(url)


def kaggle(url: str) -> Login | None:
    """As Kaggle's own client finds it: KAGGLE_API_TOKEN or ~/.kaggle/access_token; KAGGLE_USERNAME and KAGGLE_KEY; kaggle.json in
    $KAGGLE_CONFIG_DIR, ~/.kaggle or ~/.config/kaggle."""
    if not _owners(url, "kaggle.com"):
        return of_netrc(url)
    if token := os.environ.get("KAGGLE_API_TOKEN"):
        return Login("", Path(token).read_text().strip() if Path(token).is_file() else token, "KAGGLE_API_TOKEN")
    place = Path.home() / ".kaggle/access_token"
    if place.is_file():
        return Login("", place.read_text().strip(), f"{place}")
    if own := _of_environment("KAGGLE_USERNAME", "KAGGLE_KEY", os.environ):
        return own
    given = os.environ.get("KAGGLE_CONFIG_DIR")
    for folder in [Path(given)] if given else [Path.home() / ".kaggle", Path.home() / ".config/kaggle"]:
        place = folder / "kaggle.json"
        if place.is_file():
            try:
                told = json.loads(place.read_text())
                return Login(told["username"], told["key"], f"{place}")
            except (ValueError, KeyError, TypeError, OSError):  # whose message may hold what the file does
                raise UserError(f"{place}: can't be read as Kaggle's file with username and key") from None
    return of_netrc(url)
