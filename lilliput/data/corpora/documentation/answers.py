"""Questions that a docstring answers in a sentence: what the thing is for, and what each parameter means."""

import re
from collections.abc import Iterator

SHORTEST, LONGEST = 30, 300
"""Characters of an answer."""


def summary(docstring: str) -> str | None:
    """The first one or two sentences of a plain docstring, ending in a full stop; None if they do not stand alone."""
    return _sentences(docstring.split("\n\n", 1)[0])


def parameters(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield (name, sentence) for each parameter that a NumPy, Google or reST section explains in a sentence."""
    for name, description in (*_numpy(docstring), *_google(docstring), *_rest(docstring)):
        if name.isidentifier() and name not in ("self", "cls") and (sentence := _sentences(description, most=1)):
            yield name, sentence


def about(subject: str, sentence: str) -> str:
    """ "Return the sum of x." as "`f` returns the sum of x."; "A sum." as "`f`: A sum." where `f` is the subject."""
    verb, _, rest = sentence.partition(" ")
    stem = _STEMS.get(verb.lower())
    if not stem or rest.startswith(_NOUN):
        return f"`{subject}`: {sentence}"
    return f"`{subject}` {stem} {rest if verb.lower() == stem else _AND.sub(_and, rest)}"


def _sentences(text: str, most: int = 2) -> str | None:
    text = " ".join(text.split())
    text = _LEADING_TYPE.sub("", _TRAILING_DEFAULT.sub("", text))
    if not text or not (text[0].isalpha() or text[0] == "`"):
        return None
    text = text[0].upper() + text[1:]
    parts = _SENTENCE_END.split(text)
    answer = parts[0]
    if most > 1 and len(parts) > 1 and len(answer) < 60 and parts[1].endswith("."):
        answer = f"{answer} {parts[1]}"
    if answer[-1].isalnum() or answer[-1] in ")`\"'":
        answer += "."
    if not (SHORTEST <= len(answer) <= LONGEST and answer.endswith(".") and not answer.endswith("..")):
        return None
    return None if _BROKEN.search(answer) or not _is_prose(answer) else answer


def _is_prose(answer: str) -> bool:
    """Balanced brackets and quotes, at least five words, mostly letters."""
    balanced = answer.count("(") == answer.count(")")
    quoted = answer.count("`") % 2 == 0 and answer.count('"') % 2 == 0
    letters = sum(character.isalpha() or character == " " for character in answer)
    return balanced and quoted and len(answer.split()) >= 5 and letters >= 0.85 * len(answer) and answer.isascii()


def _numpy(docstring: str) -> Iterator[tuple[str, str]]:
    section = _NUMPY_SECTION.search(docstring)
    for match in _NUMPY_ITEM.finditer(section[1]) if section else ():
        yield match[1], match[2].split("\n\n", 1)[0]


def _google(docstring: str) -> Iterator[tuple[str, str]]:
    section = _GOOGLE_SECTION.search(docstring)
    if not section:
        return
    depth = len(section[1])
    item = re.compile(rf"^ {{{depth}}}`?(\w+)`?[ ]*(?:\(.*?\))?[ ]*:[ ]*(.*(?:\n {{{depth + 1},}}\S.*)*)", re.MULTILINE)
    for match in item.finditer(section[1] + section[2]):
        yield match[1], match[2]


def _rest(docstring: str) -> Iterator[tuple[str, str]]:
    for match in _REST_ITEM.finditer(docstring):
        yield match[1], match[2]


_VERBS = re.findall(
    r"\w+",
    """
    abort accept acquire add adjust align allow append apply ask assert assign attach build calculate call cancel
    cast change check choose clear close collect combine compare compile compose compute concatenate configure
    construct convert copy count create cut decode define delete derive describe deserialize detect determine
    disable discard dispatch display divide download draw drop dump duplicate emit enable encode ensure enter
    enumerate escape estimate evaluate execute exit expand export extend extract fetch fill filter finalize find
    fit flatten flush force format freeze gather generate get give group guess handle hide ignore implement import
    increase indicate infer initialize insert inspect install instantiate interpolate interpret invert invoke
    iterate join keep launch limit link list load lock log look lower make manage map mark measure merge modify
    move multiply normalize notify obtain open pack pad parse partition pass perform permute pick plot pop predict
    prepare prevent print process produce prompt propagate provide prune push put query quote raise rank read
    rebuild receive record reduce refresh register reject release reload remove rename render reorder repeat
    replace represent request require reset reshape resize resolve restore retrieve return reverse rewrite rotate
    round run sample save scale scan schedule search select send serialize set shift show shuffle simplify skip
    slice solve sort specify split stack start step stop store strip submit substitute subtract sum suppress swap
    switch take tell terminate test throw toggle tokenize trace track transform translate transpose traverse trim
    truncate try turn unlock unpack unset update upload use validate verify visit wait walk warn watch wrap write
    yield
    """,
)


def _inflected(verb: str) -> str:
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")


def _and(match: re.Match[str]) -> str:
    return f"{match[1]}{_inflected(match[2])}"


_STEMS = {form: _inflected(verb) for verb in _VERBS for form in (verb, _inflected(verb))}
"""Verbs that begin summaries, bare or inflected -> their third person."""

_AND = re.compile(
    r"( and (?:then )?|, then )(add|apply|compute|convert|create|extract|generate|get|raise|remove|return|take)\b"
)
"""Second verbs that are no nouns, to be inflected as the first."""
_NOUN = ("of ", "is ", "are ", "representing ", "containing ", "used ", "class ")
"""Words that follow a word such as "List" when it is not a verb."""

_SENTENCE_END = re.compile(
    r"(?<!e\.g\.)(?<!i\.e\.)(?<!\betc\.)(?<!\bcf\.)(?<!\bal\.)(?<!\bvs\.)(?<!\bEq\.)(?<!\b[A-Z]\.)"
    r"(?<=[.!?])\s+(?=[A-Z`])"
)
_TRAILING_DEFAULT = re.compile(r"[\s;,(\[]*\b(?:Defaults? (?:is|to|=)|Default:|default:|\(default)[^.]*\.?\s*\)?$")
_LEADING_TYPE = re.compile(
    r"^(?:optional|required|\([^()]*\))[,.;:]?\s+|^-+\s+"
    r"|^(?:str|string|int|bool|float|dict|list|tuple|callable|object)\b[\s:,.-]+(?=[A-Z])"
)
_BROKEN = re.compile(
    r"https?:|::|:param|:type|:return|>>>|[][{}<>|\\=^#@~]|%\w|\*\w|\w\*|``|\bTODO\b|\bFIXME\b|\bXXX\b|\s:\s|:\.$|__\w"
    r"|^\w+\.\w|^(?:See\b|Same as|Alias|Deprecated|Inherit|Internal|Not implemented|Override|Private|Copied|Args?:"
    r"|Returns?:|Note|Usage|Example|Refer to|Copyright|Licen[sc]e|This (?:docstring|is an? (?:internal|private)))"
    r"|\b(?:see (?:below|above|also|notes)|below\.$|as follows|following:|described (?:above|below)|the following\.$)",
    re.IGNORECASE,
)
_NUMPY_SECTION = re.compile(
    r"^(?:Other )?Parameters\n[-=]{3,}\n(.*?)(?=\n[^\n]+\n[-=~]{3,}(?:\n|\Z)|\Z)", re.DOTALL | re.MULTILINE
)
_NUMPY_ITEM = re.compile(r"^(\w+) ?(?::.*)?\n((?:[ \t]+\S.*(?:\n|\Z))+)", re.MULTILINE)
_GOOGLE_SECTION = re.compile(
    r"^[ ]*(?:Args|Arguments|Parameters):[ ]*\n\n?([ ]+)(?=\S)(.*?)(?=\n\S|\n[ ]*(?:Returns?|Raises|Yields?):|\Z)",
    re.DOTALL | re.MULTILINE,
)
_REST_ITEM = re.compile(r"^[ ]*:param (?:[^:\n]+ )?(\w+):[ ]*(.*(?:\n[ ]+(?!:)\S.*)*)", re.MULTILINE)
