"""The writer of translations: what it makes of schemas, and that nothing stale passes it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def make_locales():
    sys.path.insert(0, str(_SCRIPTS))
    try:
        spec = importlib.util.spec_from_file_location("scp_make_locales", _SCRIPTS / "make_locales.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(_SCRIPTS))
        sys.modules.pop("layout", None)
    return module


SCHEMAS = {
    "SCPLoadStatistics": {
        "display_name": "Load",
        "description": "Loads a file.",
        "inputs": [{"id": "statistics", "tooltip": "A file."}, {"id": "mode", "tooltip": "How."}],
        "outputs": [{"name": "statistics", "tooltip": "Goes on."}],
    },
    "Other": {"display_name": "Other", "description": "Loads a file.", "inputs": [], "outputs": []},
}
TEXTS = ["Load", "Loads a file.", "statistics", "A file.", "mode", "How.", "Goes on.", "Other"]
WORDS = {text: text.upper() for text in TEXTS}


def test_every_text_counts_once(make_locales):
    assert sorted(make_locales.texts(SCHEMAS)) == sorted(TEXTS)


def test_the_layout_is_the_pages(make_locales):
    made = make_locales.translated(SCHEMAS, WORDS)
    assert made["SCPLoadStatistics"] == {
        "display_name": "LOAD",
        "description": "LOADS A FILE.",
        "inputs": {
            "statistics": {"name": "STATISTICS", "tooltip": "A FILE."},
            "mode": {"name": "MODE", "tooltip": "HOW."},
        },
        "outputs": {"0": {"name": "STATISTICS", "tooltip": "GOES ON."}},
    }
    assert made["Other"] == {"display_name": "OTHER", "description": "LOADS A FILE."}


def test_a_text_the_host_may_add_to_is_not_fixed_in_english(make_locales):
    made = make_locales.english(SCHEMAS)
    assert made["SCPLoadStatistics"]["inputs"]["statistics"] == {"name": "statistics"}
    assert made["SCPLoadStatistics"]["inputs"]["mode"] == {"name": "mode", "tooltip": "How."}


def test_a_changed_text_is_missing_and_its_translation_stale(make_locales):
    old = dict(WORDS)
    del old["How."]
    old["How so?"] = "HOW SO?"
    assert make_locales.differences(SCHEMAS, old) == (["How."], ["How so?"])


def test_texts_that_do_not_fit_are_refused_and_named(make_locales, monkeypatch):
    monkeypatch.setattr(make_locales, "load", lambda language: {**WORDS, "gone": "x"} if language == "ja" else WORDS)
    with pytest.raises(make_locales.HarnessError, match=r'ja\.json has what no node says: "gone"'):
        make_locales.contents(SCHEMAS)


def test_what_means_something_in_a_message_is_written_as_itself(make_locales):
    assert make_locales.escape("a {b} | c@d") == "a {'{'}b{'}'} {'|'} c{'@'}d"
    assert make_locales.escape("0..255, 50 %: 'so'") == "0..255, 50 %: 'so'"
