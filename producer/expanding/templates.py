"""Templates: ``a {red|blue} {2$$ and $$fox|owl|cat}, __places/cities__``, in dynamicprompts' syntax.

Text outside braces and wildcards is text, whatever it contains. What stands in braces is parsed by dynamicprompts, once
for each group however many rows have it. What is chosen is counted, drawn and enumerated by
``producer.expanding.choices``: the library's own generators loop for ever on an unknown wildcard and hold every
combination in memory. Its variables (``${x}``), wraps (``%{}``), comments and sampling signs are refused by name.
"""

import math
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from producer.expanding.choices import Chain, Choice, Literal, Offer
from producer.expanding.given_wildcards import GivenWildcards
from producer.expanding.wildcards import Wildcards
from producer.manifests.rows import shown_value
from schemas.errors import TemplateError
from schemas.fields import MAX_PROMPT_CHARACTERS

MAX_NESTING: Final = 20
#: of one template: the parser takes about half a millisecond for each
MAX_BARS: Final = 1_000
#: characters and pieces of one text
MAX_BULK: Final = 1_000_000
_MAX_WILDCARDS_DEEP: Final = 10
_REMEMBERED: Final = 4_096

_MARK: Final = re.compile(r"[{}]|__")
_BRACE: Final = re.compile(r"[{}]")
_NOT_READ: Final = (
    (re.compile(r"(?<!\$)\$\{"), "variables (${...}) are not read"),
    (re.compile(r"%\{"), "wraps (%{...}) are not read"),
    (re.compile(r"\d\s*-\s*\$\$(?:[^${}]*\$\$)?\s*__(?:(?!__)[^|{}])*__\s*\}"),
     "how many of a wildcard's values at the most is not said; write {1-3$$__name__}"),
)  # fmt: skip
#: in which the parser takes no ``/*`` for the beginning of a comment
_WILDCARD: Final = re.compile(r"__(?!/)(?:(?!__|//)[^#{}|])*__")
_COMMENT: Final = re.compile(r"#|//|/\*")
_UNREAD_STARTS: Final = MappingProxyType({"$": "variables (${...})", "%": "wraps (%{...})"})
_LONE: Final = re.compile(r"(?<!\$)\$(?!\$)|%")


def is_template(text: str) -> bool:
    """Whether anything in it could be chosen; all other text stands for itself."""
    return _MARK.search(text) is not None


class Templates:
    """Reads templates. Not for several threads."""

    def __init__(self, wildcards: Wildcards | GivenWildcards) -> None:
        self._wildcards = wildcards
        self._opened: list[str] = []
        self._choices: dict[str, Choice] = {}
        self._group: Callable[[str], Offer] = lru_cache(_REMEMBERED)(self._read_group)

    def offer(self, text: str) -> Offer:
        """What a template offers.

        Raises:
            TemplateError: it is malformed, names no wildcard that there is, or could fill the memory.
        """
        try:
            found = self._offer(text)
        except RecursionError:
            raise TemplateError("is nested too deep") from None
        if found.bulk > MAX_BULK:
            raise TemplateError(f"may become a text of more than {MAX_BULK:,} characters and pieces")
        return found

    def _offer(self, text: str) -> Offer:
        if not is_template(text):
            return Literal(text)
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise TemplateError(f"has more than {MAX_PROMPT_CHARACTERS:,} characters; a wildcard may have more")
        if text.count("|") > MAX_BARS:
            raise TemplateError(f"has more than {MAX_BARS:,} options; put them into a wildcard's file")
        parts = [self._part(text, start, end) for start, end in _parts(text)]
        return parts[0] if len(parts) == 1 else Chain(tuple(parts))

    def _part(self, text: str, start: int, end: int) -> Offer:
        part = text[start:end]
        if not is_template(part):
            return Literal(part)
        try:
            return self._group(part)
        except TemplateError as error:
            where = "" if self._opened else f"{shown_value(part)} at character {start + 1}: "
            raise TemplateError(f"{where}{error}") from None

    def _read_group(self, part: str) -> Offer:
        for pattern, reason in _NOT_READ:
            if pattern.search(part):
                raise TemplateError(reason)
        if _COMMENT.search(_WILDCARD.sub("", part)):
            raise TemplateError("#, // and /* within braces would begin a comment; comments are not read")
        return self._compiled(_command(part))

    def _compiled(self, command: Any) -> Offer:
        """What one of dynamicprompts' commands offers."""
        if command.sampling_method is not None:
            raise TemplateError("the signs ~, ! and @ are not read; --templates says how texts are chosen")
        match type(command).__name__:
            case "LiteralCommand":
                return Literal(command.literal)
            case "SequenceCommand":
                return Chain(tuple(map(self._compiled, command.tokens)))
            case "VariantCommand":
                return self._choice(command)
            case "WildcardCommand":
                return self._wildcard(command)
        raise TemplateError("variables and wraps are not read")

    def _choice(self, command: Any) -> Choice:
        only = command.variants[0].value if len(command.variants) == 1 else None
        if type(only).__name__ == "WildcardCommand":
            found = self._wildcard(only)
            options, weights = found.options, found.weights
        else:
            options, weights = self._options(command)
        if command.max_bound > len(options):
            different = "option" if len(options) == 1 else "different options"
            raise TemplateError(f"asks for {command.max_bound:,} of {len(options):,} {different}")
        return Choice(options, weights, command.min_bound, command.max_bound, command.separator)

    def _options(self, command: Any) -> tuple[tuple[Offer, ...], tuple[float, ...]]:
        """The options that differ. The weights of equal ones are added up; one of weight 0 is never chosen."""
        weights: dict[str, float] = {}
        commands = {}
        for variant in command.variants:
            if not 0 <= variant.weight < math.inf:
                raise TemplateError(f"the weight {variant.weight:g} is not 0 or more")
            key = repr(variant.value)
            commands[key] = variant.value
            weights[key] = weights.get(key, 0) + variant.weight
        chosen = {key: weight for key, weight in weights.items() if weight > 0}
        if not chosen:
            raise TemplateError("every option has the weight 0")
        return tuple(self._compiled(commands[key]) for key in chosen), tuple(chosen.values())

    def _wildcard(self, command: Any) -> Choice:
        if not isinstance(command.wildcard, str) or command.variables:
            raise TemplateError("the name of a wildcard is plain text, without choices or parameters")
        name = command.wildcard.strip()
        if name not in self._choices:
            self._choices[name] = self._read_wildcard(name)
        return self._choices[name]

    def _read_wildcard(self, name: str) -> Choice:
        way = " → ".join(map(shown_value, [*self._opened, name]))
        if name in self._opened:
            raise TemplateError(f"the wildcard {shown_value(name)} names itself: {way}")
        if len(self._opened) >= _MAX_WILDCARDS_DEEP:
            raise TemplateError(f"wildcards name each other more than {_MAX_WILDCARDS_DEEP} deep: {way}")
        self._opened.append(name)
        try:
            options = tuple(self._value(name, value) for value in self._wildcards.values(name))
        finally:
            self._opened.pop()
        return Choice(options, (1.0,) * len(options))

    def _value(self, name: str, value: str) -> Offer:
        try:
            return self._offer(value)
        except TemplateError as error:
            raise TemplateError(f"wildcard {shown_value(name)}: {shown_value(value)}: {error}") from None


def _parts(text: str) -> Iterator[tuple[int, int]]:
    """Where its parts begin and end: text, a group in braces, or a wildcard."""
    place = 0
    while mark := _MARK.search(text, place):
        start = mark.start()
        if start > place:
            yield place, start
        match mark.group():
            case "}":
                raise TemplateError(f"has a }} at character {start + 1} that no {{ opens")
            case "{":
                place = _end_of_group(text, start)
            case _:
                place = _end_of_wildcard(text, start)
        yield start, place
    if place < len(text):
        yield place, len(text)


def _end_of_group(text: str, start: int) -> int:
    before = text[start - 1 : start] if start else ""
    if before in _UNREAD_STARTS:
        raise TemplateError(f"has {before}{{ at character {start}: {_UNREAD_STARTS[before]} are not read")
    depth = 0
    for brace in _BRACE.finditer(text, start):
        depth += 1 if brace.group() == "{" else -1
        if depth > MAX_NESTING:
            raise TemplateError(f"is nested more than {MAX_NESTING} deep at character {brace.start() + 1}")
        if not depth:
            return brace.end()
    raise TemplateError(f"has a {{ at character {start + 1} that no }} closes")


def _end_of_wildcard(text: str, start: int) -> int:
    end = text.find("__", start + 2)
    if end < 0:
        raise TemplateError(f"has __ at character {start + 1}, and no __ after it that ends a wildcard's name")
    if not text[start + 2 : end].strip() or _BRACE.search(text, start, end):
        raise TemplateError(f"has __ at character {start + 1}, and no wildcard's name after it")
    return end + 2


def _command(part: str) -> Any:
    """The group as dynamicprompts parses it. Everything that the parser raises is about the group."""
    parse, parse_error = _parser()
    try:
        return parse(part)
    except (parse_error, ValueError, OverflowError):
        lone = "; $ and % cannot stand in braces" if _LONE.search(part) else ""
        raise TemplateError(f"cannot be read{lone}") from None


@lru_cache(1)
def _parser() -> tuple[Callable[[str], Any], type[Exception]]:
    """Imported where it is used: it takes a fifth of a second."""
    import warnings  # noqa: PLC0415

    from dynamicprompts.parser.config import default_parser_config  # noqa: PLC0415
    from dynamicprompts.parser.parse import get_cached_parser, parse  # noqa: PLC0415
    from pyparsing import ParseBaseException  # noqa: PLC0415

    with warnings.catch_warnings():  # it calls pyparsing by deprecated names when it builds its parser
        warnings.simplefilter("ignore", DeprecationWarning)
        get_cached_parser(default_parser_config)
    return parse, ParseBaseException
