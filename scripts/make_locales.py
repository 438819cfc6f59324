"""Write the pack's translations for ComfyUI's page: `python scripts/make_locales.py`.

The English comes from the nodes' own schemas; scripts/translations/<language>.json holds, for every English text, the
same in another language. A text that was changed is found nowhere there, so nothing stale can be written: the script
then lists what is to be translated, and what may be taken out. Standard library only, but it starts a host.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from layout import ROOT, HarnessError, replacing

LOCALES = ROOT / "locales"
TRANSLATIONS = ROOT / "scripts" / "translations"
LANGUAGES = ("zh", "ja")
# Texts that say more where the user's folder holds released files. The page prefers a translation to the text of the
# host, so in English there is none.
DYNAMIC = frozenset({("SCPLoadStatistics", "statistics")})
# The page reads its texts as messages, in which these mean something.
_SPECIAL = "{}@|"

Schemas = Mapping[str, Mapping[str, Any]]
Translate = Callable[[str], str]


def texts(schemas: Schemas) -> list[str]:
    """Return every text of the schemas that a user reads, once."""
    seen: dict[str, str] = {}
    for node in schemas.values():
        _node(node, lambda text: seen.setdefault(text, text))
    return list(seen)


def _node(node: Mapping[str, Any], translate: Translate, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    inputs = {
        port["id"]: {"name": translate(port["id"])}
        | ({} if port["id"] in without else {"tooltip": translate(port["tooltip"])})
        for port in node["inputs"]
    }
    outputs = {
        str(place): {"name": translate(port["name"]), "tooltip": translate(port["tooltip"])}
        for place, port in enumerate(node["outputs"])
    }
    told: dict[str, Any] = {
        "display_name": translate(node["display_name"]),
        "description": translate(node["description"]),
    }
    return told | {name: ports for name, ports in (("inputs", inputs), ("outputs", outputs)) if ports}


def escape(text: str) -> str:
    """Return a text as a message that reads like it."""
    return "".join(f"{{'{letter}'}}" if letter in _SPECIAL else letter for letter in text)


def english(schemas: Schemas) -> dict[str, Any]:
    """Return nodeDefs.json of the schemas' own language."""
    return {
        name: _node(node, escape, without=frozenset(port for owner, port in DYNAMIC if owner == name))
        for name, node in schemas.items()
    }


def translated(schemas: Schemas, translations: Mapping[str, str]) -> dict[str, Any]:
    """Return nodeDefs.json of another language. Raises KeyError at a text that has no translation."""
    return {name: _node(node, lambda text: escape(translations[text])) for name, node in schemas.items()}


def load(language: str) -> dict[str, str]:
    """Read {English text: translation} of a language."""
    return json.loads((TRANSLATIONS / f"{language}.json").read_text(encoding="utf-8"))


def differences(schemas: Schemas, translations: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the texts that lack a translation, and the translations of texts that no longer are."""
    wanted = texts(schemas)
    return [text for text in wanted if text not in translations], [text for text in translations if text not in wanted]


def contents(schemas: Schemas) -> dict[str, str]:
    """Return {language: text of its nodeDefs.json}.

    Raises HarnessError, listing the texts, where a language does not have just the texts of the schemas.
    """
    files, wrong = {"en": english(schemas)}, []
    for language in LANGUAGES:
        translations = load(language)
        missing, stale = differences(schemas, translations)
        wrong += [f"{language}.json lacks {json.dumps(text)}" for text in missing]
        wrong += [f"{language}.json has what no node says: {json.dumps(text)}" for text in stale]
        if not wrong:
            files[language] = translated(schemas, translations)
    if wrong:
        raise HarnessError("\n".join([f"Change the files in {TRANSLATIONS}:", *wrong]))
    return {language: json.dumps(found, indent=1, ensure_ascii=False) + "\n" for language, found in files.items()}


def main() -> None:
    """Write every language's file."""
    import node_schemas

    for language, text in contents(node_schemas.read()).items():
        path = LOCALES / language / "nodeDefs.json"
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    try:
        main()
    except HarnessError as error:
        sys.exit(str(error))
