"""Text of a peer's, made fit for logs, terminals and error messages."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 40_000  # characters; a peer of ours cuts its error texts at half of that

# Control characters move the cursor of a terminal or end a line, and so do the two separators of Unicode. The others
# change the direction of the text around them. Halves of surrogate pairs, which JSON may have, cannot be written.
_ESCAPED: Final = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (
        *(code for code in range(0x20) if code not in b"\t\n"),
        *range(0x7F, 0xA0),
        *(0x061C, 0x200E, 0x200F, 0x2028, 0x2029),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
        *range(0xD800, 0xE000),
    )
}


def readable(text: str, most: int = LONGEST) -> str:
    """Escape the control characters of a text, except tabs and line ends, and cut it to `most` characters.

    A text that was cut ends with a mark that says how long it was.
    """
    length = len(text)
    if length > most:
        text = f"{text[:most]}... ({length} characters)"
    if text.isprintable():
        return text
    return text.replace("\r\n", "\n").translate(_ESCAPED)
