# ruff: noqa: RUF001 (signs and letters of other scripts are meant)
"""What stands around an answer and may change what it says.

Beside a number that is the answer stand, before it, words of a closed list, and behind it a unit or what is
counted. Any answer may be taken back, doubted or gone on with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from tunix_rt_evaluator.grading.reading.numbers import COMPOUND_UNIT, GLUED_UNIT
from tunix_rt_evaluator.grading.reading.spelling import CURRENCY, LETTER, UNSPACED
from tunix_rt_evaluator.grading.reading.words import (
    BEHIND,
    CHANGE,
    COMPARED,
    CONDITION,
    COPULA,
    CORRECTION,
    FILLER,
    FIRST_BEHIND,
    LEAD,
    NEGATION,
    NUMBER_WORD,
    UNSPACED_BEHIND,
    UNSPACED_CHANGES,
    UNSPACED_LEAD,
)

# In the shape of a sentence each number is one character, which says by its place in this range which it is.
FIRST: Final = 0xE000
MAX_NUMBERS: Final = 200
N: Final = f"[{chr(FIRST)}-{chr(FIRST + MAX_NUMBERS)}]"
"""A number in a shape, as a part of a regular expression."""


def pattern(text: str) -> re.Pattern[str]:
    """A compiled regular expression, verbose and ignoring case."""
    return re.compile(text, re.VERBOSE | re.IGNORECASE)


_RAISED: Final = "\u00b2\u00b3\u00b9\u2070-\u209c\u1d62-\u1d6a"
# Signs that only adorn.
_ORNAMENT: Final = (
    "\u2705\u2713\u2714\u2611\u2b50\u2728\u27a1\ufe0f\U0001f389\U0001f60a\U0001f642\U0001f600\U0001f604\U0001f449"
    "\U0001f3af\U0001f44d"
)
_SHORT: Final = (
    "(?:of|in|at|by|on|to|is|an|it|us|we|he|me|my|so|no|pm|am|as|do|de|da|di|du|la|le|el|al|en|em|un|au|im|zu"
    "|os|po|na|za|qu|\u0432|\u043d\u0430|\u0443|\u0438\u0437"
    "|kg|km|cm|mm|ml|ft|lb|oz|gb|mb|hr|pc|z\u0142|kr|cu|sq|ui)"
)
_LETTER: Final = rf"(?:(?![{UNSPACED}])[^\W\d_])"
_PLAIN_WORD: Final = (
    rf"(?:(?:sq|cu)\.|{_SHORT}(?![^\W\d_])|(?<=\s)[aAI](?=\s)|(?-i:[A-Z]{{2}})(?![^\W\d_])"
    rf"|(?:[dl]['\u2019])?{_LETTER}{{3,}}(?:['\u2019.-]{_LETTER}+)*['\u2019]?(?:\^\{{?[1-4]\}}?)?)"
)
_OFTEN: Final = (
    "(?:total|profit|sum|average|mean|price|cost|discount|distance|score|salary|income|speed|amount|balance"
    "|weight|answer|result|value|area|volume|perimeter|length|height|width|age|rate|count|probability)"
)

_BEFORE: Final = pattern(
    rf"""
    (?: ^ | [=\u2248:\u21d2\u2192] | (?:{LEAD}|{COPULA}) (?:\s+(?:{FILLER}))*\s
      | ^(?:(?:{FILLER})\s+)*(?:{FILLER})\s | {UNSPACED_LEAD} )
    [\s~{CURRENCY}]*[*\u2022~{_ORNAMENT}]?\s*$
    """
)
_CHANGED_BEFORE: Final = pattern(
    rf"""
      {COMPARED}\s*(?:(?:{FILLER})\s+)*$ | {CHANGE} | {UNSPACED_CHANGES}$ | [{_RAISED}]
    | \b{NUMBER_WORD}\W+$ | \b{NUMBER_WORD}\s+(?:in|by|for|to)\s+$
    | \\[a-z]+\s*$ | \b(?!{_OFTEN})\w+\s+of\s+(?:the\s+)?$
    """
)
_UNIT: Final = rf"(?:{GLUED_UNIT}|{COMPOUND_UNIT})(?!{LETTER})"
_AFTER: Final = pattern(
    rf"""
    (?: \s*(?:{_UNIT}) | \s?[{CURRENCY}] | (?:st|nd|rd|th)s?(?!{LETTER})
      | -(?={_PLAIN_WORD}) | \s*o['\u2019]clock | \s*/\s*(?={_PLAIN_WORD}) | /- )?
    (?: (?:\s+|(?<=[-/])) (?: {_PLAIN_WORD} | & | [{CURRENCY}%\u00b0] )
      | / (?:{_UNIT}|{_PLAIN_WORD}) | [%\u00b0] (?!\s*{N}) | [{UNSPACED}] )*
    (?:(?<=\w)!)? [\s.,:;%{_ORNAMENT}]* (?:\*\*|__)? \.?
    """
)
_CHANGED_AFTER: Final = pattern(
    rf"""
      ^[\s-]* (?:(?:st|nd|rd|th)\s+(?:of\ )?)? (?:{FIRST_BEHIND}|{NUMBER_WORD}) \b
    | [\s-](?:{CHANGE}|{BEHIND}) | ^\s*[!*\u2014-]+\s*$ | \s:\s*$ | (?<![^\W\d_])[{_RAISED}] | \bor\b
    | \betc\b
    | ^\s*(?:[\u7684\u306e\uc758\u6708\u65e5]|[{UNSPACED}]{{0,3}}{UNSPACED_CHANGES}) | {UNSPACED_BEHIND}
    | ^\s*(?:in|per|by|of|to|on|with|from)\b[^,]*\bthese\b
      (?!\s+(?:second|minute|hour|day|week|month|year)s?\b) | \bthese\s+(?:more|others?)\b
    | \b(?:per|each|every|a)\s+\w+\s+(?:for|in|over)\b.*\bthese\b | \beach\ (?:of|for)\ these | \bevery\ these
    | \b(?:along|together)\s+with
    """
)


_OPERATED_BEFORE: Final = re.compile(
    r"[-*+/^<>\u2212\u2264\u2265\u2260\u00b1\u2213\u221a\u00d7\u00f7|{\d]\s*$|(?<![^\W\d_])[a-z]$"
)
_OPERATED_AFTER: Final = re.compile(
    r"\s*(?:[!?^*/+<>\u2264\u2265\u2260\u00b1\u00d7\u00f7|\u2026\u221a\u03c0%\u2030=]|\.[.\d]|[-\u2013\u2014~]\s*\$?\d"
    r"|(?:to|and|through|out|bis|\u00e0|a)\s+\$?\d|\d|[a-z](?![^\W\d_]))"
)


class NoNumber(Exception):
    """A text gives no number; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """A number in a shape, and the text on either side of it."""

    before: str
    number: str
    after: str

    def checked(self) -> str:
        """The number; raises NoNumber if the text beside it changes what it says."""
        if not _BEFORE.search(self.before) or _CHANGED_BEFORE.search(self.before):
            raise NoNumber(f"{shown(self.before[-12:])} stands before a number and may change it")
        if not _AFTER.fullmatch(self.after) or _CHANGED_AFTER.search(self.after):
            raise NoNumber(f"{shown(self.after[:12])} stands behind a number and may change it")
        return self.number


def changes_beside(before: str, after: str) -> str:
    """How the text on either side of a boxed number changes what it says, for people; "" if it does not."""
    if changed := _CHANGED_BEFORE.search(before) or _OPERATED_BEFORE.search(before):
        return f"{shown(changed[0])} stands before a number and may change it"
    clause = re.sub(r"^\s*and\s+(?=\D*$)", " ", re.split(r"[.,;](?=\s|$)", after, maxsplit=1)[0])
    if changed := _CHANGED_AFTER.search(clause) or _OPERATED_AFTER.match(after):
        return f"{shown(changed[0])} stands behind a number and may change it"
    return ""


def shown(shape: str) -> str:
    """A part of a shape for people."""
    return repr(re.sub(N, "#", shape.strip()))


_SURE: Final = r"(?:sure|certain|convinced|confident|positive|persuaded)"

_STRONG: Final = rf"""
(?: \b(?: doubt\w*|dubious|unlikely|improbable|unsure|uncertain\w*|unclear|undecided|unconvinced|skeptical
  |sceptical|hesita\w+|(?:not|\w+n['’]t|never|hardly|less\ than|far\ from)(?:\ \w+){{0,3}}\ {_SURE}
  |(?:not|\w+n['’]t|cannot)(?:\ \w+)?\ (?:think\ so|know|tell|say|remember|recall|decide|agree|believe)
  |(?:not|\w+n['’]t)\ (?:the|my|an?)\ (?:\w+\ )?(?:answer|choice|case)
  |(?:not|\w+n['’]t)\ (?:(?:really|quite|exactly|at\ all|so)\W*$|true\b|correct\b|right\b|it\W*$)
  |no\ (?:idea|clue|way|chance|wonder)|beats\ me|who\ knows|god\ knows|hard\ to\ (?:say|tell)|or\ so
  |(?:i|answer)\ (?:might|may|could)\b|(?:just|only|wild|random|educated|pure|best|a)\ guess|guess(?:ing|ed)
  |kidding|joking|joke|jk|lol|sarcas\w+|ironic\w*|prank|hah?a(?:ha)*|mistaken|misread|misunderst\w+|misspoke
  |confus(?:ed|ing)|(?:my|a|the|bad|made)\ mistake|my\ (?:bad|error|fault)|apolog\w+|sorry|oops|whoops|hmm+
  |erm|err|uh+|wrong\ again|never\ ?mind|forget\ (?:it|that|this|what)|disregard
  |ignore\ (?:that|this|my|it|the\ above)|take\ (?:it|that|this)\ back|retract\w*|withdraw\w*|revise\w*
  |reconsider\w*|rethink\w*|recheck\w*|(?:change|changed|changing)\ my\ (?:mind|answer)|on\ the\ other\ hand
  |then\ again|come\ to\ think|disagree\w*|nonsense|rubbish|bogus|bullshit|as\ if|yeah\ right
  |if\ (?:only|at\ all|anything)|a\ lie|lied|lying\ to|(?:not|\w+n['’]t)\ trust|grain\ of\ salt
  |(?:made|making)\ (?:it|this|that)\ up|april\ fools?|for\ now|tentative\w*|provisional\w*
  |(?!100\b)\d{{1,2}}\s?%\ {_SURE}|(?:low|little|no|much|some|\d+\s?%)\ (?:confidence|certainty)
  |or\ at\ least|reverse\ is|nope|(?:said|told|claim(?:s|ed)?)\ (?:nobody|no\ one)
  |or\ (?:is|was|was\ it|is\ it|maybe|not)
)\b
  |\b(?: zweif\w+|bezweif\w+|unsicher\w*|ungewiss|unklar|nicht(?:\ \w+){{0,2}}\ (?:sicher|überzeugt)
  |wahrscheinlich\ nicht|schwer\ zu\ sagen|geraten|rate\ nur|irr(?:e|tum)\b|geirrt|vertan|quatsch|scherz\w*
  |spaß|witz|verzeihung|entschuldigung|doch\ nicht|stimmt(?:\ \w+)?\ nicht|keine\ ahnung
  |weiß\ (?:es\ |ich\ )?nicht|(?:glaube|denke|meine)\ (?:ich\ |es\ )?(?:eher\ )?nicht|korrektur
  |besser\ gesagt|im\ gegenteil|ach\ nein
)\b
  |\b(?: dout\w+|incertain\w*|pas\ (?:\w+\ )?(?:sûre?|certaine?|convaincue?)|trompé\w*|plaisant\w*|blague
  |rigole|non\ plus|en\ fait|aucune\ idée|n?e?\ ?(?:sais|crois|pense)\ pas|sauf\ erreur|pardon|désolée?
  |au\ hasard|ou\ pas|oublie[rz]?
)\b
  |\b(?: dud[aoé]\w*|a\ lo\ mejor|acaso|no\ (?:estoy\ )?(?:\w+\ )?segur[oa]|equivoc\w*|mentira|broma|bromeo
  |en\ realidad|mejor\ dicho|ni\ idea|al\ azar|perdón|perdona|no\ (?:lo\ )?(?:sé|creo|recuerdo)|o\ no
  |olvid\w+
)\b
  |\b(?: dubbi\w*|magari|può\ darsi|non\ (?:sono\ |ne\ sono\ )?(?:\w+\ )?(?:sicur|cert)[oa]|sbagli\w*
  |scherz\w*|non\ (?:lo\ )?(?:so|credo)|duvid\w+|dúvid\w+|não\ (?:tenho\ certeza|sei|acho|creio)|engan\w+
  |brincadeira|aliás|na\ verdade|twijfel\w*|misschien|tvivl\w*|måske|kanske
  |сомнева\w*|сомнен\w*|наверное?|не\ (?:уверен\w*|думаю|знаю)|ошиб\w*|шучу|шутк\w*|впрочем|точнее
)\b
  |怀疑|懷疑|不确定|不確定|不肯定|不太|不敢|也許|或許|恐怕|未必|不对|不對|开玩笑|開玩笑|等等|等一下|更正
  |应该不|應該不|难说|難說|不知道|不清楚|不懂|搞混|收回|抱歉
  |疑问|疑問|(?:可能|吗|嗎|吧|呢)(?=[^\u3400-\u9fff]*$)
  |かもしれ|かな|たぶん|多分|おそらく|やっぱり|わから|分から|自信が|でしょうか
  |의심|아마|모르|확실하지|확실치|틀렸|잘못
)"""
_WEAK: Final = r"""
(?: \b(?: maybe|perhaps|possibly|conceivably|supposedly|allegedly|presumably|instead|rather|opposite
  |contrary|untrue|false|wrong|incorrect\w*|erroneous|invalid
  |(?:it|that|this|they|which|he|she)\ (?:might|may|could)
  |vielleicht|möglicherweise|eventuell|womöglich|falsch\w*|irrtümlich|unsinn|eher|halt|vielmehr|moment
  |peut-être|éventuellement|erreur|faux|fausse|inexact\w*|plutôt|au\ contraire
  |quizás?|tal\ vez|posiblemente|error|más\ bien|al\ contrario|falso|incorrect[oa]
  |forse|anzi|piuttosto|talvez|errad\w+|возможно|может\ быть )\b
  |错|錯|不是|其实|其實|不过|不過|反而|也许|或许|大概|猜|違う|違い|間違|疑|아니
)"""
DOUBT: Final = rf"(?:{_STRONG}|{_WEAK})"
"""What says of an answer that it may be another one, that it is a joke, or that it is taken back. The
weak words describe matters as well: they doubt an answer only where they speak of it."""

HEARSAY: Final = r"""
(?: \b(?: (?:say|says|said|claim\w*|told|heard|suppose[ds]?|argue[ds]?|alleg\w+|insist\w*|wrote|writes
    |pretend\w*|assum\w+|assert\w*|wish\w*|hop(?:e|ed|es|ing)|ask(?:s|ed|ing)?|wonder\w*
    |imagin\w+|suggest\w*|propos\w+|quot\w+)
  |according\ to\ (?!the\ (?:text|passage|table|question|figure|graph|data|definition|rule|formula)\b)
  |(?:people|some|many|most|others|everyone|everybody|someone|somebody|one|you|they|he|she|students?|friend
  |teacher|book)\ (?:\w+\ )?(?:think|thinks|thought|believe[sd]?|choose|chose|pick(?:ed|s)?|would|might|may
  |could|can)|thought|believed|used\ to|once|at\ first|initially|originally|previously|tempt\w+|seem\w*
  |appear\w*|looks?\ like|nobody|no\ one|niemand|personne|nadie|thinks|believes
  |(?:one|people|you)\ (?:could|might|can)|(?:man|on|uno)\ (?:könnte|kann|pourrait|peut|podría|puede)|könnte
  |dürfte|pourrait|podría|potrebbe|poderia
  |behaupte\w*|sag(?:t|te|en|ten)|meint\w*|angeblich|laut|zunächst|zuerst|hieß|scheint|scheinbar
  |dit|disent|disait|prétend\w*|selon|d['’]après|semble\w*|paraît|croyais|pensais
  |dice[ns]?|decía\w*|dijo|según|pretend\w*|parece\w*|creía|pensaba|dizem?|disse|segundo|parece|dicono
  |secondo|sembra
)\b
  |有人|据说|據說|听说|聽說|他们|他們|他说|她说|大家|看起来|似乎|好像|原以为|以为|本来|と言|そう(?:だ
  |です)\b|らしい
)"""
"""What says that a statement is somebody else's, or was once believed."""

CERTAIN: Final = r"""
(?: \b(?: without\ (?:a\ |any\ )?(?:doubt|question)|no\ doubt(?:\ about\ it)?|beyond\ (?:any\ )?doubt
  |ohne\ (?:jeden\ )?zweifel|zweifellos|zweifelsohne|sans\ (?:aucun\ )?doute
  |sin\ (?:ninguna\ |lugar\ a\ )?dudas?|senza\ dubbio|sem\ dúvida )\b
  |毫无疑问|无疑|間違いなく|의심할\ 여지\ 없이
)"""
"""What says that there is no doubt."""

MORE: Final = r"""
(?: \b(?: forgot\w*|left\ out|omitted|one\ more|another\ one|vergessen|oublié|olvidé|etc|usw
  |and\ so\ (?:on|forth)|among\ others|random\w*|arbitrar\w*|zufällig|au\ hasard|al\ azar|confidence
  |likelihood )\b
)"""
"""What says of an answer that more belongs to it, or that it was drawn by lot."""


FAREWELL: Final = r"""
(?: (?:that['’]?s|this\ is|it\ is|it['’]s)\ (?:it|all|that|my\ (?:final\ )?answer)|done|bye|goodbye|thanks?
  |thank\ you|ok(?:ay)?|cheers|end|fertig|danke
  |q\.?e\.?d|fin|merci|gracias|listo|fim|obrigad[oa]|grazie|完|谢谢|完毕|以上(?:です)?|(?:i\ )?hope\ (?:this
  |that|it)\ helps?(?:\ you)?|good\ luck|see\ above|well\ done|great|correct|yes|sure
  |explanation|reasoning|rationale|reason|justification|analysis|solution|note|why|steps?|details?|summary
  |erklärung|begründung|explication|justification|raison|explicación|justificación|razón|spiegazione
  |解释|解析|分析|理由|说明|解説|説明|설명|해설 )
"""
"""Short sentences that end a text and say nothing of its answer."""

HELP: Final = r"""
(?: (?:would|do|did|can|could|shall|may|should|are|is|any|need|want|have)\b.*\b(?:you|i|there|help
  |questions?|else|more)\b.*
  \b(?:help|explain\w*|question\w*|details?|anything\ else|more|further|elaborate|assist|walk|see)\b|(?:any
  |more|other)\ (?:other\ )?questions|(?:kann|möchte|soll|haben)\b.*\b(?:helfen|fragen|erkläre\w*)\b
  |(?:puis|voulez|avez|souhaite)\S*\b.*\b(?:aider|questions?|explique\w*)\b
  |¿?(?:puedo|quiere|tiene|necesit)\S*\b.*\b(?:ayuda\w*|preguntas?|expli\w*)\b|还有.*问题
)"""
"""Questions to the reader that offer more help, and ask nothing of the answer."""

_MAX_LENGTH: Final = 2_000
_MAX_SENTENCES: Final = 40
_FEW_WORDS: Final = 3
_FEW_CHARACTERS: Final = 4
_TAG: Final = re.compile(r"</?[a-zA-Z|][^<>\n]{0,40}>")
# From here on the text is about another question.
_NEXT: Final = re.compile(
    r"^\W*(?:(?:next\s+)?question|q|problem|exercise|human|user|input|prompt|frage|pregunta)\b[^\n:]{0,20}[:.]"
    r"|^\W*问题|^\W*題|^\W*题",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE: Final = re.compile(r"(?<=[.!?…])[\s\"'”’)\]*_]+|(?<=[。！？])|\n")
_QUESTION: Final = re.compile(r"[?？؟]")
_CORRECTED: Final = pattern(CORRECTION)
_CERTAIN: Final = pattern(CERTAIN)
_MORE: Final = pattern(MORE)
_DOUBTED: Final = pattern(rf"(?P<strong>{_STRONG})|{_WEAK}")
_ABOUT_IT: Final = pattern(
    r"\b(?:it|that|this|i|i['\u2019]m|my|answers?|choices?|options?|das|es|ich|antwort|ça|ce|c|je|réponse|eso|esto|yo|respuesta)\b"
    r"| [我这這那] | 答案 | 答え | 정답"
)
_MANY_WORDS: Final = 6
_MANY_CHARACTERS: Final = 12
_GOES_ON: Final = pattern(
    r"\W*(?:(?:or|and|also|plus|as\ well\ as|oder|und|auch|ou|et|aussi|o|y|tambi\u00e9n|e)\b"
    r"|\u0438\u043b\u0438\b|\u6216|\u548c|\u8fd8\u6709|\u4ee5\u53ca)"
)
_BYE: Final = pattern(FAREWELL)
_OFFER: Final = pattern(HELP)
_WORD: Final = re.compile(rf"[^\W{UNSPACED}]+")
_WORDLESS: Final = re.compile(f"[{UNSPACED}]")
_OPEN: Final = pattern(rf"{NEGATION} | {DOUBT} | {HEARSAY} | {CONDITION} | \b(?:whether|why)\b")
# Whose answer follows, or of which kind it is.
_OTHER: Final = pattern(
    r"(?:['\u2019]s|s['\u2019]|\b(?:wrong|incorrect|false|bad|worst|possible|potential|alternative|other|another|previous|first|old"
    r"|initial|original|sample|example|user|student|their|his|her|expected|reference|falsche|mauvaise|mala|错误|錯誤|其他))"
    r"\s*(?:\w+\s)?$"
)
_CLAUSE: Final = re.compile(r"[,;:.!?()\n，；：。！？—–]")


def until_next(text: str) -> str:
    """A text up to where a line begins another question."""
    begins = _NEXT.search(text)
    return text[: begins.start()] if begins else text


def doubted(sentence: str) -> bool:
    """Whether a sentence doubts an answer or takes it back.

    Words such as "wrong" do so only if they speak of the answer, or the sentence holds little else.
    """
    sentence = _CERTAIN.sub(" ", sentence)
    found = list(_DOUBTED.finditer(sentence))
    if not found or any(each["strong"] for each in found):
        return bool(found)
    long = len(_WORD.findall(sentence)) >= _MANY_WORDS or len(_WORDLESS.findall(sentence)) >= _MANY_CHARACTERS
    return not long or _ABOUT_IT.search(sentence) is not None


def unsettled(sentence: str) -> bool:
    """Whether a sentence beside an answer doubts it, or says that it is incomplete or was drawn by lot."""
    return doubted(sentence) or _MORE.search(sentence) is not None


def _sentences(text: str) -> Iterator[str]:
    for sentence in _SENTENCE.split(_TAG.sub(" ", until_next(text))):
        if re.search(r"\w", sentence):
            yield sentence.strip()


def objection(rest: str) -> str:
    """Why an answer does not count, given the text behind it; "" if it does.

    Another value, a question, a doubt and a correction are reasons; whole sentences that explain are none.
    """
    for sentence in islice(_sentences(rest[:_MAX_LENGTH]), _MAX_SENTENCES):
        if _BYE.fullmatch(sentence.strip(" .!*_:;-")):
            continue
        if _CORRECTED.search(sentence) or unsettled(sentence):
            return "it is taken back or doubted behind it"
        if _GOES_ON.match(sentence):
            return f"more stands behind it: {sentence[:40]!r}"
        if _QUESTION.search(sentence) and not _OFFER.search(sentence):
            return "it is questioned behind it"
        if len(_WORD.findall(sentence)) < _FEW_WORDS and len(_WORDLESS.findall(sentence)) < _FEW_CHARACTERS:
            return f"more stands behind it: {sentence[:40]!r}"
    return ""


def is_asserted(before: str) -> bool:
    """Whether a text that begins with ``before`` asserts the answer that follows.

    Its last clause must not deny, doubt or condition it, nor say that it is somebody else's.
    """
    clause = _CLAUSE.split(before)[-1]
    return not (_OPEN.search(clause) or _OTHER.search(clause))
