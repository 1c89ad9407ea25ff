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

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Login:
    """A name and a password, or a token under no name, and where they were found."""

    name: str = field(repr=False)
    password: str = field(repr=False)
    where: str


def parse_origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL: what a login is for."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80)


def is_login_allowed(url: str) -> bool:
    """Whether a login may be sent over this URL's scheme."""
    return url.startswith("https://") or urlsplit(url).hostname in LOOPBACK_HOSTS


def find_netrc_login(url: str) -> Login | None:
    """The login of a server in $NETRC, ~/.netrc or ~/_netrc. Raises UserError where the file can't be read."""
    host = urlsplit(url).hostname or ""
    netrc_paths = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for path in netrc_paths:
        if not path.is_file():
            continue
        try:
            entry = netrc.netrc(path).hosts.get(host)  # not its `default`, which is for every server
        except netrc.NetrcParseError as error:
            raise UserError(f"{path}, line {error.lineno}: can't be read as netrc") from None
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        if entry:
            return Login(entry[0], entry[2] or "", f"{path}")
    return None


def _find_environment_login(name: str, password: str, environment: Mapping[str, str]) -> Login | None:
    if environment.get(name) and environment.get(password):
        return Login(environment[name], environment[password], f"{name} and {password}")
    return None


def _is_owner_host(url: str, host: str) -> bool:
    return urlsplit(url).hostname in (host, f"www.{host}", *LOOPBACK_HOSTS)


def find_physionet_login(url: str) -> Login | None:
    """PHYSIONET_USERNAME and PHYSIONET_PASSWORD, as PhysioNet's own client has them, or .netrc."""
    environment_login = (
        _find_environment_login("PHYSIONET_USERNAME", "PHYSIONET_PASSWORD", os.environ)
        if _is_owner_host(url, "physionet.org")
        else None
    )
    return environment_login or find_netrc_login(url)


def find_kaggle_login(url: str) -> Login | None:
    """As Kaggle's own client finds it: KAGGLE_API_TOKEN or ~/.kaggle/access_token; KAGGLE_USERNAME and KAGGLE_KEY; kaggle.json in
    $KAGGLE_CONFIG_DIR, ~/.kaggle or ~/.config/kaggle."""
    if not _is_owner_host(url, "kaggle.com"):
        return find_netrc_login(url)
    if token := os.environ.get("KAGGLE_API_TOKEN"):
        return Login("", Path(token).read_text(encoding="utf-8").strip() if Path(token).is_file() else token, "KAGGLE_API_TOKEN")
    path = Path.home() / ".kaggle/access_token"
    if path.is_file():
        return Login("", path.read_text(encoding="utf-8").strip(), f"{path}")
    if environment_login := _find_environment_login("KAGGLE_USERNAME", "KAGGLE_KEY", os.environ):
        return environment_login
    config_folder = os.environ.get("KAGGLE_CONFIG_DIR")
    for folder in [Path(config_folder)] if config_folder else [Path.home() / ".kaggle", Path.home() / ".config/kaggle"]:
        path = folder / "kaggle.json"
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                return Login(content["username"], content["key"], f"{path}")
            except (ValueError, KeyError, TypeError, OSError):  # whose message may hold what the file does
                raise UserError(f"{path}: can't be read as Kaggle's file with username and key") from None
    return find_netrc_login(url)
