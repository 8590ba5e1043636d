"""Mails: subject and text, without addresses, quoted mails and signatures; attachments are files of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from mimetypes import guess_extension
from pathlib import PurePosixPath

from minigpt.documents.archives import check_total, member_of
from minigpt.documents.base import Row, Skipped, Source, Unread, check_text, paragraphs
from minigpt.documents.html import marked, whole_text
from minigpt.documents.quotes import FORWARDED, is_passed_on, own_text

ENCRYPTED = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")
# Elements of HTML that hold a quoted mail, or a signature.
QUOTES = (
    'blockquote[type="cite"], .gmail_quote, .yahoo_quoted, div[name="quote"], .moz-cite-prefix, .gmail_signature, '
    ".moz-signature"
)


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
    subject = str(message.get("subject", ""))
    forwarded = FORWARDED.match(subject) is not None
    text = f"{subject}\n\n{body_text(body, forwarded=forwarded)}" if body is not None else ""
    yield {"text": check_text(paragraphs(text)), "date": date_of(message)}


def attachments(source: Source) -> Iterator[Source | Skipped]:
    """Yield the attachments of a mail, forwarded mails among them, as files in a folder of the mail's name."""
    message = message_from_bytes(source.data(), policy=policy.default)
    if message.get_content_type() in ENCRYPTED:
        return
    owner = replace(source, beside=source.beside or source.file)
    taken: set[str] = set()
    for number, part in enumerate(message.iter_attachments(), start=1):
        check_total(number, 0)
        name = PurePosixPath((part.get_filename() or f"attachment{suffix_of(part)}").replace("\\", "/")).name
        name = f"{number}-{name}" if name in taken else name
        taken.add(name)
        yield member_of(owner, name, content_of(part), "")


def suffix_of(part: MIMEPart) -> str:
    """Return the end of a file's name that goes with the type of an attachment without a name."""
    kind = part.get_content_type()
    return ".eml" if kind == "message/rfc822" else guess_extension(kind) or ""


def content_of(part: MIMEPart) -> bytes:
    """Return the content of an attachment."""
    if part.get_content_type() == "message/rfc822":
        return bytes(part.get_content())
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""


def body_text(body: MIMEPart, *, forwarded: bool) -> str:
    """Return the text of a mail that its sender wrote or passed on."""
    content = str(body.get_content()).replace("\r\n", "\n")
    if body.get_content_type() != "text/html":
        return own_text(content, forwarded=forwarded)
    whole = check_text(content)
    own = "" if forwarded else own_text(whole_text(marked(whole, QUOTES, unless=is_passed_on)))
    return (own or own_text(whole_text(whole), forwarded=forwarded)).replace("\n", "\n\n")


def date_of(message: EmailMessage) -> str:
    """Return the day of a mail, empty where it names none."""
    date = getattr(message.get("date"), "datetime", None)
    return date.date().isoformat() if date is not None else ""
