"""Nesting: how deep the lists and objects of a JSON document stand in each other."""


def nesting(content: object) -> int:
    """Levels of lists and objects: 0 for a number, 2 for ``[[1], 2]``. Counted without recursion."""
    depth, level = 0, [content]
    while level := [value for value in level if isinstance(value, (dict, list))]:
        depth += 1
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
    return depth
