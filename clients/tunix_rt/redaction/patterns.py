"""What personal data and secrets look like: patterns, and checks of digits. No library is needed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

# In texts, a value may stand behind an escape such as \n, whose letter is no part of it.
_LEFT: Final = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
_GAP: Final = "[ \u00a0\u202f./()\u2010\u2011-]"
_MANY_DIGITS: Final = re.compile(r"\d(?:\D{0,3}\d){6}")
_SCRIPTS: Final = "\u0e00-\u0eff\u2e80-\ud7ff"
_LATIN: Final = "A-Za-z0-9\u00c0-\u052f"

Span = tuple[int, int]
Find = Callable[[str], Iterator[Span]]


class Finding(NamedTuple):
    """A value in a text: where it begins and ends, and its kind, such as "EMAIL"."""

    start: int
    end: int
    kind: str


def _matches(pattern: str, *hints: str, accepts: Callable[[str], bool] = bool) -> Find:
    """Finds ``pattern``, or its group ``value``, in texts that hold one of ``hints``."""
    compiled = re.compile(pattern)
    group = "value" if "value" in compiled.groupindex else 0

    def find(text: str) -> Iterator[Span]:
        if hints and not any(hint in text for hint in hints):
            return
        for match in compiled.finditer(text):
            if accepts(match[group]):
                yield match.span(group)

    return find


def _digits(text: str) -> str:
    return "".join(str(int(character)) for character in text if character.isdecimal())


def _luhn(digits: str) -> bool:
    values = [int(digit) for digit in reversed(digits)]
    doubled = (sum(divmod(2 * value, 10)) for value in values[1::2])
    return (sum(values[::2]) + sum(doubled)) % 10 == 0


_CARD_RUN: Final = re.compile(r"(?<![A-Za-z0-9])(?<!\d\.)\d+(?:[ \u00a0-]\d+)*(?![A-Za-z0-9]|\.\d)")
_CARD_GROUPS: Final = re.compile(
    r"\d{13,19}|\d{4}(?:\D\d{4}){2,3}(?:\D\d{1,4})?|\d{4}\D\d{6}\D\d{4,5}|\d{8}\D\d{8}"
)


def _cards(text: str) -> Iterator[Span]:
    """Payment cards: 13-19 digits in the groups that cards have, whose check digit is right."""
    if not _MANY_DIGITS.search(text):
        return
    for match in _CARD_RUN.finditer(text):
        run = match[0]
        if len(run) < 13:
            continue
        groups = [part.span() for part in re.finditer(r"\d+", run)]
        at = 0
        while at < len(groups):
            begin = groups[at][0]
            ends = range(min(at + 5, len(groups)) - 1, at - 1, -1)
            last = next((place for place in ends if _is_card(run[begin : groups[place][1]])), None)
            if last is not None:
                yield match.start() + begin, match.start() + groups[last][1]
            at = at + 1 if last is None else last + 1


def _is_card(text: str) -> bool:
    if not 13 <= len(text) <= 23 or not _CARD_GROUPS.fullmatch(text):
        return False
    digits = _digits(text)
    known = digits[:1] in "3456" or "2221" <= digits[:4] <= "2720"
    return known and len(digits) <= 19 and _luhn(digits)


_IBAN_COUNTRIES: Final = (
    "AD AE AL AT AZ BA BE BG BH BI BR BY CH CR CY CZ DE DJ DK DO EE EG ES FI FK FO FR GB GE GI "
    "GL GR GT HN HR HU IE IL IQ IS IT JO KW KZ LB LC LI LT LU LV LY MC MD ME MK MN MR MT MU NI "
    "NL NO OM PK PL PS PT QA RO RS RU SA SC SD SE SI SK SM SO ST SV TL TN TR UA VA VG XK YE "
)
_IBAN: Final = re.compile(
    _LEFT + r"[A-Za-z]{2}\d{2}"
    r"(?:[A-Za-z0-9]{11,30}|(?:[ \u00a0-][A-Za-z0-9]{4}){2,7}(?:[ \u00a0-][A-Za-z0-9]{1,3})?)"
    r"(?![A-Za-z0-9])"
)


def _ibans(text: str) -> Iterator[Span]:
    """IBANs, whose check digits are right. A word behind one is no part of it."""
    for match in _IBAN.finditer(text):
        if match[0][:2].upper() not in _IBAN_COUNTRIES:
            continue
        ends = [end.start() for end in re.finditer(r"(?![A-Za-z0-9])(?<=[A-Za-z0-9])", match[0])]
        for end in reversed(ends):
            joined = re.sub("[^A-Za-z0-9]", "", match[0][:end]).upper()
            if len(joined) < 15:
                break
            turned = joined[4:] + joined[:4]
            if int("".join(str(int(character, 36)) for character in turned)) % 97 == 1:
                yield match.start(), match.start() + end
                break


_ADDRESS: Final = re.compile(
    r"(?<![A-Za-z0-9.])(?<![=<>~!^]=)(?<!version )(?<!Version )"
    r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![A-Za-z0-9]|\.\d)"
    r"|(?<![A-Za-z0-9:.])(?=[A-Fa-f:]*[0-9])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![A-Za-z0-9:]|\.\d)"
)


def _addresses(text: str) -> Iterator[Span]:
    """IP addresses, except loopback, unspecified ones and masks, and what is a slice such as 1::2."""
    if "." not in text and ":" not in text:
        return
    for match in _ADDRESS.finditer(text):
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        slice_like = address.version == 6 and not any(len(group) > 2 for group in match[0].split(":"))
        if not (address.is_loopback or address.is_unspecified or match[0].startswith("255.") or slice_like):
            yield match.span()


def _phone_digits(least: int, most: int = 15) -> Callable[[str], bool]:
    date = re.compile(r"\d\d([./-])\d\d\1\d{4}")
    return lambda text: least <= len(_digits(text)) <= most and not date.match(text)


_PHONES: Final = (
    # +49 (0)30 901820
    _matches(rf"(?<![A-Za-z0-9)])\+[1-9](?:{_GAP}{{0,3}}\d){{7,14}}(?!\d)", "+", accepts=_phone_digits(8)),
    # 0049 30 901820
    _matches(
        rf"(?<![A-Za-z0-9.,])00[1-9]\d(?:{_GAP}{{0,2}}\d){{7,12}}(?!\d)", "00", accepts=_phone_digits(11, 17)
    ),
    # (415) 555-2671, 415-555-2671, 415 555 2671
    _matches(
        r"(?<![A-Za-z0-9.])(?:1[-. ])?(?:\(\d{3}\)[ .-]?|\d{3}[-.])\d{3}[-. ]\d{4}(?![A-Za-z0-9]|[.-]\d)"
        r"|(?<![A-Za-z0-9.,])[2-9]\d\d [2-9]\d\d[ -]\d{4}(?![A-Za-z0-9]|[.,-]\d)"
    ),
    # 0171 2345678, 020 7946 0958, 06.12.34.56.78, (030) 901820
    _matches(
        r"(?<![A-Za-z0-9.,+:/-])0[1-9]\d{0,4}(?:[ /.-]\d{2,8}){1,4}(?![A-Za-z0-9]|[.,/:-]\d)"
        r"|\(0\d{1,5}\) ?\d[\d /-]{4,12}\d(?!\d)",
        "0",
        accepts=_phone_digits(9, 12),
    ),
    # phone: 4155552671
    _matches(
        r"(?:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))(?i:telephone|phone|telefon|tel|mobile|mobil|handy|fax|whatsapp|sms)"
        r"(?i:[_ ]?(?:number|num|nummer|no|nr))?(?![A-Za-z])[^0-9\n+]{0,10}"
        rf"(?P<value>\+?\d(?:{_GAP}{{0,2}}\d){{6,14}})(?!\d)",
        accepts=_phone_digits(7),
    ),
    _matches(
        rf"(?:电话|手机|電話|手機|携帯|전화)[^0-9\n+]{{0,8}}(?P<value>\+?\d(?:{_GAP}{{0,2}}\d){{6,14}})(?!\d)"
    ),
)


def _phones(text: str) -> Iterator[Span]:
    if _MANY_DIGITS.search(text):
        for find in _PHONES:
            yield from find(text)


def _is_credential(text: str) -> bool:
    """Whether it may be a token, and not the word that stands behind "Bearer" in a sentence."""
    return len(text) >= 20 or not (text.isalpha() and (text.islower() or text.istitle()))


# Of a key that was cut: its lines of base64, and its headers.
_PEM_BODY: Final = (
    r"(?:(?:\\[nr]|\s)*(?:[A-Za-z0-9+/=]{16,}|[A-Za-z0-9-]{4,30}: [^\n\\]{1,100}))*"
    r"(?:(?:\\[nr]|\s)*[A-Za-z0-9+/=]{1,76}={1,2})?"
)
_AT: Final = r"(?:@|%40|\\u0040|&#64;)"
_DOMAIN: Final = (
    rf"(?:[{_LATIN}{_SCRIPTS}](?:[{_LATIN}{_SCRIPTS}-]{{0,62}})\.){{1,8}}"
    rf"(?:xn--[A-Za-z0-9-]{{2,59}}|[A-Za-z]{{2,63}}|[\u00c0-\u052f{_SCRIPTS}]{{2,20}})"
)
_TOKEN68: Final = "[A-Za-z0-9._~+/=-]"
_AWS_SECRET: Final = (
    r"(?i:secret[_ -]?(?:access[_ -]?)?key)\W{1,8}(?P<value>[A-Za-z0-9/+=]{40})(?![A-Za-z0-9/+=])"
)

# The first kind wins where two overlap.
RULES: Final[tuple[tuple[str, Find], ...]] = (
    (
        "PRIVATE_KEY",
        _matches(
            r"(?s)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:(?:(?!-----BEGIN ).){0,50000}?-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|"
            + _PEM_BODY
            + ")",
            "PRIVATE KEY",
        ),
    ),
    ("JWT", _matches(_LEFT + r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]{2,}){1,4}", "eyJ")),
    (
        "AWS_KEY",
        _matches(
            _LEFT
            + r"(?:A3T[A-Z0-9]|AKIA|ASIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Z0-9])"
        ),
    ),
    ("AWS_KEY", _matches(_AWS_SECRET)),
    (
        "GITHUB_TOKEN",
        _matches(_LEFT + r"(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,})", "gh", "github_pat_"),
    ),
    ("SLACK_TOKEN", _matches(_LEFT + r"(?:xox[a-z]|xapp)-[A-Za-z0-9-]{8,}", "xox", "xapp")),
    (
        "SLACK_TOKEN",
        _matches(r"hooks\.slack\.com/(?:services|workflows)/(?P<value>[A-Za-z0-9_/-]{16,})", "hooks.slack"),
    ),
    (
        "API_KEY",
        _matches(
            _LEFT + r"(?:sk-(?:ant|proj|svcacct|admin)-[A-Za-z0-9_-]{8,}"
            r"|sk-(?=[A-Za-z_-]{0,200}\d)[A-Za-z0-9_-]{16,}"
            r"|sk-[A-Za-z0-9_-]{0,40}[A-Za-z0-9]{20,}|[rs]k_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{16,}"
            r"|AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{20,}|ya29\.[A-Za-z0-9_-]{20,}|glpat-[A-Za-z0-9_-]{16,}"
            r"|hf_[A-Za-z0-9]{24,}|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{32,}|gsk_[A-Za-z0-9]{24,}|xai-[A-Za-z0-9]{24,}"
            r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|dop_v1_[a-f0-9]{32,})"
        ),
    ),
    (
        "API_KEY",
        # OPENAI_API_KEY=..., "client_secret": "...": digits among letters, for a word is no key.
        _matches(
            # Its first letter by itself, which the search for patterns goes fast by.
            r"[AaCcSs](?:(?<=[Aa])(?i:pi[_ -]?key|(?:ccess|uth)[_-]?token)"
            r"|(?<=[Cc])(?i:lient[_-]?secret)|(?<=[Ss])(?i:ecret[_-]?key))"
            r"\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?"
            r"(?P<value>(?=[A-Za-z0-9_+/=-]{0,200}\d)(?=[A-Za-z0-9_+/=-]{0,200}[A-Za-z])[A-Za-z0-9_+/=-]{16,})"
            r"(?![A-Za-z0-9_+/=.(\[-])"
        ),
    ),
    ("API_KEY", _matches(rf"(?i:x-api-key)[\"']?\s*[:=]\s*[\"']?(?P<value>{_TOKEN68}{{8,}})")),
    ("PASSWORD", _matches(r"(?<=://)(?P<value>[^\s/@:\"'<>]{1,100}:[^\s/@\"'<>]{1,200})@", "://")),
    (
        "EMAIL",
        _matches(
            rf"(?:(?<!\\)[{_LATIN}_](?:[{_LATIN}%'+_.-]{{0,63}})|[{_SCRIPTS}]{{1,32}}|\"[^\"\\\n<>]{{1,64}}\")"
            rf"{_AT}{_DOMAIN}",
            "@",
            "%40",
            "u0040",
            "&#64;",
        ),
    ),
    ("IBAN", _ibans),
    ("CARD", _cards),
    ("PHONE", _phones),
    ("IP_ADDRESS", _addresses),
    (
        "BEARER_TOKEN",
        _matches(
            r"(?i:authorization)[\"']?\s*[:=]\s*[\"']?(?i:bearer|basic|token)\s+"
            rf"(?P<value>{_TOKEN68}{{5,}}[A-Za-z0-9_=+/~-])",
            accepts=_is_credential,
        ),
    ),
    (
        "BEARER_TOKEN",
        _matches(
            rf"(?<![A-Za-z0-9])(?i:bearer)\s+(?P<value>{_TOKEN68}{{7,}}[A-Za-z0-9_=+/~-])",
            accepts=_is_credential,
        ),
    ),
)

KINDS: Final = tuple(dict.fromkeys(kind for kind, _ in RULES))
"""What is found without a library."""
