"""The words of a mail's own sender: without the mails that programs quote below or between them, and signatures.

A forwarded mail is kept, without the lines of addresses above it, and so is a quoted one if the sender wrote nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

# Beginnings of a forwarded mail's subject.
FORWARDED = re.compile(r"\s*(fwd?|wg|tr|rv|vb|pd|enc|doorst|i)\s*:", re.I)
# Lines that programs put above a mail that is answered, or forwarded.
RULE = r"[-_*=]{2,}"
ANSWERED = re.compile(
    rf"\s*{RULE}\s*(original message|original appointment|urspr(ü|ue?)ngliche nachricht|original-nachricht"
    r"|message d['’]origine|mensaje original|messaggio originale|mensagem original|oorspronkelijk bericht"
    rf"|ursprungligt meddelande|oprindelig meddelelse|wiadomość oryginalna|původní zpráva|исходное сообщение)\s*{RULE}",
    re.I,
)
PASSED_ON = re.compile(
    rf"\s*({RULE}\s*(forwarded message|weitergeleitete nachricht|message transféré|mensaje reenviado"
    rf"|messaggio inoltrato|mensagem encaminhada|doorgestuurd bericht)\s*{RULE}"
    r"|(begin forwarded message|anfang der weitergeleiteten (nachricht|e-mail)|début du message (réexpédié|transféré)"
    r"|inicio del mensaje reenviado|inizio messaggio inoltrato)\s*:)",
    re.I,
)
# Names in the lines of addresses above a quoted mail: its sender, its day, its subject and other ones.
SENDERS = "from|von|de|da|van|från|fra|od|от"
DAYS = "sent|date|gesendet|datum|envoyé|envoyé le|enviado|enviado el|fecha|inviato|data|verzonden|skickat|sendt|wysłano"
DAYS += "|odesláno|отправлено|дата"
SUBJECTS = "subject|betreff|objet|asunto|oggetto|assunto|onderwerp|ämne|emne|temat|předmět|тема"
OTHERS = "to|cc|bcc|reply-to|importance|attachments|an|kopie|wichtigkeit|anlagen|antwort an|à|para|a|aan|till|til|do"
OTHERS += "|komu|кому|копия"
NAMED = re.compile(
    rf"\s*\*{{0,2}}(?:(?P<sender>{SENDERS})|(?P<day>{DAYS})|(?P<subject>{SUBJECTS})|{OTHERS})\s*\*{{0,2}}\s?:", re.I
)
# The lines that say who wrote what is quoted below.
ATTRIBUTION = re.compile(
    r"(On|Am|Le|El|Il|Em|Op|Den|Dne|W dniu) .{5,240}"
    r"(wrote|schrieb.*|a écrit|escribió|ha scritto|escreveu|schreef.*|skrev.*|napsala?.*|pisze|napisał\(?a?\)?)\s*:\s*"
)
SIGNATURE = "-- "
# Most mails inside each other that are looked through for words.
DEEPEST = 20
# Most lines of addresses above a quoted mail.
MOST_NAMES = 40
LINE = re.compile(r"\s*[_-]{5,}\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The beginning of a quoted mail.

    Attributes:
        start: The line that it begins with.
        end: The line after those that only say who wrote to whom.
        forwarded: True if the mail was passed on, not answered.
    """

    start: int
    end: int
    forwarded: bool = False


def own_text(text: str, *, forwarded: bool = False) -> str:
    """Return the words of a mail's sender.

    Args:
        text: The text of the mail.
        forwarded: True if its subject says that it passes on another mail.
    """
    return "\n".join(own_lines(text.split("\n"), forwarded=forwarded)).strip("\n")


def own_lines(lines: Sequence[str], *, forwarded: bool = False, depth: int = 0) -> list[str]:
    """Return the lines of a mail's sender, and those of a mail that is passed on or has nothing above it."""
    quote = next((quote for place in range(len(lines)) if (quote := quote_at(lines, place))), None)
    own = unquoted(lines[: quote.start] if quote else lines)
    blank = not any(line.strip() for line in own)
    if depth == DEEPEST:
        return own
    if quote and (blank or forwarded or quote.forwarded):
        return [*own, *([] if blank else [""]), *own_lines(dequoted(lines[quote.end :]), depth=depth + 1)]
    marks = [line for line in lines if line.startswith(">")] if blank else []
    return own_lines(dequoted(marks), depth=depth + 1) if marks else own


def is_passed_on(text: str) -> bool:
    """Return True if a text begins with the line above a forwarded mail."""
    return PASSED_ON.match(text) is not None


def quote_at(lines: Sequence[str], place: int) -> Quote | None:
    """Return the quoted mail that begins at a line; None if none does."""
    line = lines[place]
    passed_on = PASSED_ON.fullmatch(line.rstrip()) is not None
    if passed_on or ANSWERED.fullmatch(line.rstrip()):
        first = place + 1
        while first < len(lines) and not lines[first].strip():
            first += 1
        if first < len(lines) and lines[first].startswith(">"):
            return Quote(start=place, end=first, forwarded=passed_on)
        return Quote(start=place, end=max(place + 1, after_names(lines, first)), forwarded=passed_on)
    match = NAMED.match(line)
    if match and match["sender"]:
        end = after_names(lines, place)
        kinds = {item.lastgroup for item in map(NAMED.match, lines[place:end]) if item}
        return Quote(start=place, end=end) if {"day", "subject"} <= kinds else None
    length = attribution(lines, place)
    if length and "@" in "".join(lines[place : place + length]) and not is_quoted(lines, place + length):
        return Quote(start=place, end=place + length)
    return None


def after_names(lines: Sequence[str], place: int) -> int:
    """Return the line after lines of addresses, which may go on in more lines; the same one if there are none."""
    end = place
    last = min(len(lines), place + MOST_NAMES)
    while end < last and (NAMED.match(lines[end]) or (end > place and goes_on(lines[end - 1], lines[end]))):
        end += 1
    return end


def goes_on(above: str, line: str) -> bool:
    """Return True if a line goes on with a list of addresses."""
    return bool(line.strip()) and (above.rstrip().endswith((",", ";")) or (line[0].isspace() and "@" in line))


def attribution(lines: Sequence[str], place: int) -> int:
    """Return the number of lines, one or two, that say who wrote what is quoted below; 0 if they do not."""
    for length in (1, 2):
        if ATTRIBUTION.fullmatch(" ".join(line.strip() for line in lines[place : place + length])):
            return length
    return 0


def is_quoted(lines: Sequence[str], place: int) -> bool:
    """Return True if the next line that holds something is marked as quoted, or if there is none."""
    following = next((line for line in lines[place:] if line.strip()), ">")
    return following.startswith(">")


def unquoted(lines: Sequence[str]) -> list[str]:
    """Return lines up to the signature, without those that are marked as quoted and those that say who wrote them."""
    written = list(takewhile(lambda line: line != SIGNATURE, lines))
    own: list[str] = []
    place = 0
    while place < len(written):
        length = attribution(written, place)
        if length and is_quoted(written, place + length):
            place += length
            continue
        if not written[place].startswith(">"):
            own.append(written[place])
        place += 1
    while own and (not own[-1].strip() or LINE.fullmatch(own[-1])):
        own.pop()
    return own


def dequoted(lines: Sequence[str]) -> list[str]:
    """Return lines without the mark of quoted ones, if the first one that holds something has it; without addresses."""
    first = next((line for line in lines if line.strip()), "")
    plain = [re.sub(r"^> ?", "", line) for line in lines] if first.startswith(">") else list(lines)
    start = next((place for place, line in enumerate(plain) if line.strip()), 0)
    match = NAMED.match(plain[start]) if plain else None
    return plain[after_names(plain, start) :] if match and first.startswith(">") else plain
