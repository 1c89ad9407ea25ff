"""Paths of the config and the environment: ~ expanded, nothing else read into them, and what can't be a path refused."""

import os
import pwd
from pathlib import Path

import pytest

from medmim.common.user_paths import expand_path

STAND_FOR_THEMSELVES = [
    "a b", "it's", 'say "x"', "#1", "$HOME/$(touch x)", "`touch x`", "a;b", "a&b", "*?[a]", "{x}", "é/\N{SNOWMAN}", "a\\b", "%j",
    "a~b", "no\N{NO-BREAK SPACE}break", "!", "<a>|b", "..", "/",
]  # fmt: skip


@pytest.mark.parametrize("path", STAND_FOR_THEMSELVES)
def test_other_characters_stand_for_themselves(path: str) -> None:
    assert expand_path(path) == path


def test_home_folders_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home of/me")
    user = pwd.getpwuid(os.getuid())
    assert expand_path("~") == "/home of/me" and expand_path("~/a b") == "/home of/me/a b"
    assert Path(expand_path(f"~{user.pw_name}/x")) == Path(user.pw_dir, "x")
    with pytest.raises(ValueError, match="home folder of ~nobody-of-this-name is not known here: give the whole path"):
        expand_path("~nobody-of-this-name/x")


@pytest.mark.parametrize("path, plain", [("./a", "a"), ("a/", "a"), ("a//b", "a/b"), ("a/./b", "a/b")])
def test_what_says_nothing_is_left_out(path: str, plain: str) -> None:
    assert expand_path(path) == plain


@pytest.mark.parametrize(
    "path, message",
    [
        ("", "is empty"),
        ("a\nb", "holds the character '\\\\n', which tables and logs can't show: rename the folder"),
        ("a\0b", "x00"),
        ("a\udc80", "udc80"),
        ("-a", "starts with -, which programs take for an option: give the whole path"),
        ("./--help", "starts with -"),
    ],
)
def test_what_can_not_be_a_path_is_refused(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand_path(path)
