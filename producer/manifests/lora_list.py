"""LoRAs as a manifest's cell lists them: ``pixel-art:0.8, film-grain:0.5``; in JSON also a list of objects."""

from typing import Any, Final

_FORM: Final = "should be NAME:WEIGHT, with commas between several"
_OBJECTS: Final = 'should be a list of objects like {"name": "pixel-art", "weight": 0.8}'


def lora_items(given: object) -> list[dict[str, Any]] | str:
    """An object with a ``name`` for each LoRA, in the order given; or what is wrong. Weights are not judged."""
    if isinstance(given, str):
        items = [_item(part) for part in given.split(",")]
        return _FORM if any(not item["name"] or item.get("weight") == "" for item in items) else items
    if not isinstance(given, list):
        return _OBJECTS
    return given if all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in given) else _OBJECTS


def _item(text: str) -> dict[str, Any]:
    name, colon, weight = text.partition(":")
    return {"name": name.strip(), "weight": weight.strip()} if colon else {"name": name.strip()}
