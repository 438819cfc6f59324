"""Finding the browser that the tests of the page drive."""

from __future__ import annotations

from pathlib import Path

import pytest
import setup_browser
from layout import HarnessError


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without a browser: an empty folder is all of its PATH."""
    monkeypatch.delenv("SCP_BROWSER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(path: Path) -> Path:
    path.touch(mode=0o755)
    return path


def test_a_browser_on_the_path_is_found_and_chromium_comes_first(nothing: Path) -> None:
    assert setup_browser.find_browser() is None
    chrome = program(nothing / "google-chrome")
    assert setup_browser.setup_browser() == chrome
    chromium = program(nothing / "chromium")
    assert setup_browser.find_browser() == chromium


def test_a_browser_of_the_users_own_is_taken_before_all_others(nothing: Path, monkeypatch) -> None:
    program(nothing / "chromium")
    own = program(nothing / "my browser")
    monkeypatch.setenv("SCP_BROWSER", str(own))
    assert setup_browser.find_browser() == own
    monkeypatch.setenv("SCP_BROWSER", str(nothing / "gone"))
    with pytest.raises(HarnessError, match="SCP_BROWSER names .*gone, which is no file"):
        setup_browser.find_browser()


def test_where_none_can_be_installed_the_message_says_what_to_do(nothing: Path) -> None:
    with pytest.raises(HarnessError, match=r"apt install chromium.*SCP_BROWSER"):
        setup_browser.setup_browser()


def test_the_distributions_package_is_installed_by_root(nothing: Path, monkeypatch) -> None:
    apt, log = nothing / "apt-get", nothing / "log"
    apt.write_text(f'#!/bin/sh\necho "$@" >>"{log}"\n: >"{nothing}/chromium"\n/bin/chmod +x "{nothing}/chromium"\n')
    apt.chmod(0o755)
    monkeypatch.setattr(setup_browser.os, "geteuid", lambda: 0, raising=False)
    assert setup_browser.setup_browser() == nothing / "chromium"
    update, install = log.read_text().splitlines()
    assert update.startswith("update")
    assert install.endswith("--no-install-recommends chromium fonts-noto-cjk")


def test_a_failed_installation_is_told_with_what_apt_said(nothing: Path, monkeypatch) -> None:
    apt = nothing / "apt-get"
    apt.write_text("#!/bin/sh\necho no such mirror\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setattr(setup_browser.os, "geteuid", lambda: 0, raising=False)
    with pytest.raises(HarnessError, match="(?s)offline.*no such mirror"):
        setup_browser.setup_browser()
