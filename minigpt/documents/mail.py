"""Mails: subject and text, without addresses, quoted mails and signatures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart

from minigpt.documents.base import Row, Source, Unread, check_text, paragraphs
from minigpt.documents.html import whole_text

ENCRYPTED = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")
# The line that programs put before a quoted mail.
BEFORE_QUOTE = re.compile(r"^(On|Am|Le|El|Il) .{5,120}(wrote|schrieb.*|a écrit|escribió|ha scritto)\s*:\s*$")


def read(source: Source) -> Iterator[Row]:
    """Yield the text of a mail, with its date.

    Raises:
        Unread: It is encrypted, or no mail.
    """
    message = message_from_bytes(source.data(), policy=policy.default)
    if message.get_content_type() in ENCRYPTED:
        raise Unread("password-protected: an encrypted mail")
    if not message.keys():
        raise Unread("damaged: not a mail")
    body = message.get_body(("plain", "html"))
    if attachments := [part.get_filename() or part.get_content_type() for part in message.iter_attachments()]:
        source.notes.append(f"attachments not read: {', '.join(attachments)}; save them as files to have them read")
    text = f"{message.get('subject', '')}\n\n{body_text(body)}" if body is not None else ""
    yield {"text": check_text(paragraphs(text)), "date": date_of(message)}


def body_text(body: MIMEPart) -> str:
    """Return the text of a mail that its sender wrote."""
    content = str(body.get_content())
    if body.get_content_type() == "text/html":
        return whole_text(content).replace("\n", "\n\n")
    own = re.split(r"^-- $", content.replace("\r\n", "\n"), maxsplit=1, flags=re.MULTILINE)[0]
    return "\n".join(line for line in own.split("\n") if not line.startswith(">") and not BEFORE_QUOTE.match(line))


def date_of(message: EmailMessage) -> str:
    """Return the day of a mail, empty where it names none."""
    date = getattr(message.get("date"), "datetime", None)
    return date.date().isoformat() if date is not None else ""
