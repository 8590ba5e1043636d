"""The likeliest code page of text with letters beyond ASCII: the one that makes them letters of one language."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations, islice
from math import log

# Letters beyond ASCII of each language, the most frequent first, by the code pages that its texts are written in.
LANGUAGES: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("cp1252",): (
        "éïöèçüêñ",  # English
        "üäößé",  # German
        "éèàêçâôîùûëœï",  # French
        "óíáéñúü",  # Spanish
        "àéóèíçòúïü",  # Catalan
        "ãçáéíóõêâúàô",  # Portuguese
        "èàòùéìî",  # Italian
        "äåöéüà",  # Swedish, Finnish
        "åøæéöäüòô",  # Danish, Norwegian
        "ëéïèöüó",  # Dutch, Afrikaans
        "ðáíóöúæþéý",  # Icelandic
    ),
    ("cp1250", "iso8859-2"): (
        "łęąóżśćńź",  # Polish
        "íáéěžýřčšůúťňďóö",  # Czech
        "áíéčýžúšľťôňóďäŕĺ",  # Slovak
        "éáőöóüíúű",  # Hungarian
        "čšžćđ",  # Croatian, Bosnian, Serbian, Slovene
        "ăîşţâ",  # Romanian
    ),
    ("cp1254",): ("ıüşğçöİâîû",),  # Turkish
    ("cp1257",): (
        "ėšųįžčūąę",  # Lithuanian
        "āīēšūļņčžģķ",  # Latvian
        "äõüöšž",  # Estonian
    ),
    ("cp1251", "koi8-r", "cp866", "iso8859-5"): (
        "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё",  # Russian
        "аоеитнврсдкпълзбмягучщйцхжшьюф",  # Bulgarian
    ),
    ("cp1251", "koi8-u"): ("оанивіетрслкдумпязьгбчйхцїжшюєщфґ",),  # Ukrainian
    ("cp1251", "iso8859-5"): ("аоиеннсртујвдкплмзбгчшцжњћђљџф",),  # Serbian
    ("cp1253", "iso8859-7"): ("αοιετσνηυρπκμλςγδίωάχόέθήφβύώξζϊψϋΐΰ",),  # Greek
    ("cp1255",): ("יוהלאמרתבשנםדפחקעטכגסזצןךץף",),  # Hebrew
    ("cp1256",): ("اليمنرتوبدهعفسقكحجةطشىخأصذغضإزثءظئؤآ", "اینردهمتوبلشسکخزفگقعپحجصچغذطضژآثظءئ"),  # Arabic, Persian
}
# The code page that is taken where another one is not clearly likelier, and by how much that is in natural logarithms.
USUAL = "cp1252"
CLEARLY = 5.0
# How much likelier Windows' code pages are than those of other systems, and one language than two in a text.
OTHER_SYSTEM = 1.0
SECOND_LANGUAGE = 10.0
# Share of a text's letters and signs that a language gives a place to, from which the text is taken to be in it.
FITTING = 0.85
# Chance of a sign, of a letter that the language borrows, and of what stands where neither can stand.
SIGN, BORROWED, MISPLACED = 0.02, 0.001, 1e-5
SIGNS = frozenset("’‘‚“”„–—…•«»‹›€£¥¢§°©®™×÷±µ·¿¡½¼¾²³¹ºª\xa0\xad№")
# Signs that may stand inside a word, and before one.
INSIDE, BEFORE = frozenset("’‘–—·…\xad\xa0"), frozenset("’‘‚“„«‹»›–—…•¿¡§©€£¥¢°±×µ\xa0№")
LAST_LATIN = "\u024f"
# Words, or parts of very long ones, and the most that are looked at.
WORDS = re.compile(rb"[A-Za-z0-9\x80-\xff]{1,40}")
MOST_WORDS = 3000
# Units of area and volume, in which a raised number looks like a letter of other code pages.
UNIT = re.compile(rb"[kcdmnu\xb5]?m[\xb2\xb3]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeliest:
    """The likeliest code page of a text.

    Attributes:
        page: Its name.
        fits: True if nearly all letters and signs beyond ASCII have a place in one language.
    """

    page: str
    fits: bool


def likeliest(sample: bytes) -> Likeliest:
    """Return the likeliest code page. A word counts once, so that one that is repeated decides nothing."""
    different = dict.fromkeys(word for match in WORDS.finditer(sample) if not (word := match[0]).isascii())
    words = b" ".join(islice((word for word in different if not UNIT.fullmatch(word)), MOST_WORDS))
    scores: dict[str, tuple[float, float]] = {}
    for pages, languages in LANGUAGES.items():
        for page in pages:
            signs = counted(words.decode(page, "replace"))
            several = combinations(languages, 2) if page == USUAL else ()
            best = max(score(signs, pair, pages, page) for pair in (*((one,) for one in languages), *several))
            scores[page] = max(best, scores.get(page, best))
    page = max(scores, key=lambda name: scores[name])
    if scores[page][1] < FITTING or scores[page][0] < scores[USUAL][0] + CLEARLY:
        page = USUAL
    return Likeliest(page=page, fits=scores[page][1] >= FITTING)


def score(signs: Counter[str], languages: tuple[str, ...], pages: tuple[str, ...], page: str) -> tuple[float, float]:
    """Return the logarithm of a text's chance in a code page, and the share of its signs that have a place there.

    Args:
        signs: Letters and signs of the text (:func:`counted`).
        languages: Letters of the languages that the text is in.
        pages: Code pages of these languages and of their neighbours.
        page: The code page.
    """
    chances = chances_of(languages, pages)
    # Text in many languages of the usual code page borrows many letters, so there they speak half for it.
    borrowed = 0.5 if page == USUAL else 0.0
    weights = ((number, chances.get(sign, 0.0)) for sign, number in signs.items())
    sure = sum(number * (1.0 if own > BORROWED else borrowed) for number, own in weights if own)
    chance = sum(number * log(chances.get(sign, MISPLACED)) for sign, number in signs.items())
    chance -= SECOND_LANGUAGE * (len(languages) - 1) + OTHER_SYSTEM * (not page.startswith("cp125"))
    return chance, sure / max(1, signs.total())


@cache
def chances_of(languages: tuple[str, ...], pages: tuple[str, ...]) -> Mapping[str, float]:
    """Return the chance of each sign and letter: the second most frequent letter has half of the first one's."""
    chances = dict.fromkeys("".join(LANGUAGES[pages]), BORROWED) | dict.fromkeys(SIGNS, SIGN)
    for letters in languages:
        whole = len(languages) * sum(1 / rank for rank in range(1, len(letters) + 1))
        for rank, letter in enumerate(letters, start=1):
            chances[letter] = chances.get(letter, 0) + 1 / rank / whole
    return chances


def counted(words: str) -> Counter[str]:
    """Count the signs and small letters beyond ASCII of a text; those that stand where they cannot as an empty sign."""
    padded = f" {words} "
    around: Iterable[tuple[str, str, str]] = zip(padded, words, padded[2:], strict=False)
    return Counter(placed(*signs) for signs in around if signs[1] > "\x7f")


def placed(before: str, sign: str, after: str) -> str:
    """Return a letter in small, or a sign; empty if it cannot stand between the two that are beside it."""
    if sign.isalpha() and sign not in SIGNS:
        foreign = sign > LAST_LATIN and any(other.isascii() and other.isalpha() for other in (before, after))
        wrong = foreign or before.isdigit() or after.isdigit() or (before.islower() and sign.isupper())
        return "" if wrong else sign if len(sign.lower()) > 1 else sign.lower()
    inside = before.isalpha() and after.isalpha() and sign not in INSIDE
    return "" if inside or (after.isalpha() and not before.isalpha() and sign not in BEFORE) else sign
