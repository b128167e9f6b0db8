# ruff: noqa: RUF001 (letters of other scripts are meant)
"""Outputs that give one of several options, and outputs that give none, in five languages.

``{x}`` is the option that is given, in one of the forms in which people write it, ``{y}`` another one,
``{l}`` and ``{s}`` the letter of the first alone, capital and small. An output is a statement, at times
with something before and behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from string import ascii_uppercase
from typing import Final

OPTION_SETS: Final = (
    ("Paris", "London", "New York", "Rome"),
    ("increases", "decreases", "stays the same", "cannot be determined"),
    ("5", "-5", "0.5", "50"),
    ("True", "False"),
    ("mitosis", "meiosis", "osmosis", "photosynthesis", "respiration"),
    ("A cat", "A dog", "I do not know", "None of the above"),
    ("$x^2$", "$2x$", r"\(x + 2\)", "x/2"),
    ("le chat", "der Hund", "el gato", "狗"),
)

_FORMS: Final = (
    "{l}",
    "({l})",
    "**{l}**",
    "[{l}]",
    "*{l}*",
    "`{l}`",
    r"\text{{{l}}}",
    r"$\text{{{l}}}$",
    r"\textbf{{({l})}}",
    "<b>{l}</b>",
    '"{l}"',
    "({s})",
    "{l}) {t}",
    "({l}) {t}",
    "{l}. {t}",
    "**{l}) {t}**",
)
_PLAIN_FORMS: Final = ("{l}", "({l})", "**{l}**", r"\text{{{l}}}", "<b>{l}</b>")

# One form of an option each, alone or in a sentence.
GIVES: Final = {
    "en": """
        {x}|{x}.|Answer: {x}|**Answer:** {x}|Final answer: {x}|The answer is {x}.|The answer is: {x}
        |The correct answer is {x}.|The correct option is {x}|The right choice is {x}.
        |So the answer is {x}.|Therefore, the correct answer is {x}.|Thus, it is {x}.|I think it is {x}.
        |I believe the answer is {x}.|I would choose {x}.|I'd go with {x}.|I choose option {x}.
        |My answer is {x}.|It must be {x}.|It is {x}.|It's {x}|Option {x}|Option {x} is correct.
        |Choice {x} is right.|{x} is the correct answer.|{x} is the best answer.|Probably {x}.
        |Most likely {x}.|I am sure that it is {x}.|Answer: I think it is {x}|<answer>{x}</answer>
        |\\boxed{{{x}}}|The final answer is $\\boxed{{{x}}}$.|Answer: option {x}|Without a doubt, {x}.
        |Hence {x}.|The answer to this question is {x}.|In conclusion, the answer is {x}.|#### {l}
        |answer: {s}|The answer is {s}.|I'm going with {x}.|The only correct option is {x}.
        |Of these, {x} is correct.|The answer's {x}
        """,
    "de": """
        Antwort: {x}|Die Antwort ist {x}.|Die richtige Antwort ist {x}.|Die Antwort lautet {x}.
        |Ich denke, es ist {x}.|Ich wähle {x}.|Es ist {x}.|Antwort {x} ist richtig.|{x} ist richtig.
        |Also {x}.|Ich nehme {x}.|Richtig ist {x}.|Ich würde {x} wählen.|Option {x} ist korrekt.
        |Die korrekte Lösung ist {x}.|Ich bin sicher, dass es {x} ist.|Daher ist die Antwort {x}.
        |Ohne Zweifel {x}.
        """,
    "fr": """
        Réponse : {x}|La réponse est {x}.|La bonne réponse est {x}.|C'est {x}.|Je choisis {x}.
        |Je pense que c'est {x}.|La réponse {x} est correcte.|La réponse correcte est la {x}.
        |Donc la réponse est {x}.|{x} est la bonne réponse.|Il s'agit de {x}.
        |Je crois que c'est la réponse {x}.|La bonne option est {x}.
        """,
    "es": """
        Respuesta: {x}|La respuesta es {x}.|La respuesta correcta es {x}.|Es {x}.|Creo que es {x}.
        |Elijo {x}.|La opción {x} es correcta.|La respuesta correcta es la {x}.
        |Por lo tanto, la respuesta es {x}.|{x} es la respuesta correcta.|Es la {x}.
        |Pienso que la respuesta es {x}.
        """,
    "zh": """
        答案：{x}|答案是{x}。|正确答案是{x}。|选{x}|应选{x}。|我选择{x}。|选项{x}是正确的。|所以选{x}。|因此答案是{x}。|故选{x}|我认为答案是{x}。
        |正确的选项是{x}。|答案为{x}。
        """,
}
# What gives {x} after it spoke of {y}.
TURNS: Final = {
    "en": """
        Not {y}, but {x}.|It is not {y}, it is {x}.|Answer: It is not {y}, the answer is {x}
        |Answer: {y}. Wait, actually {x}.|The answer is {y}. No, it is {x}.|{y} is wrong, so {x}.
        |{y} seems right, but actually {x} is.|I first thought {y}, but the answer is {x}.|Not {y}. {x}.
        |{y} is incorrect; {x} is correct.|{x}, not {y}.|{x} rather than {y}.|Answer: {x} (not {y})
        |Although {y} looks right, {x} is the correct answer.|It could be {y}, but the answer is {x}.
        |I would rule out {y}, leaving {x}.
        """,
    "de": """
        Nicht {y}, sondern {x}.|{y} ist falsch, {x} ist richtig.|Es ist nicht {y}, sondern {x}.
        |{x}, nicht {y}.|Die Antwort ist nicht {y}, sondern {x}.
        """,
    "fr": "Ce n'est pas {y}, mais {x}.|{y} est fausse, {x} est correcte.|{x}, pas {y}.|Pas {y}, mais {x}.",
    "es": """
        No es {y}, sino {x}.|{y} es incorrecta, {x} es correcta.|{x}, no {y}.
        |La respuesta no es {y} sino {x}.
        """,
    "zh": "不是{y}，而是{x}。|{y}是错误的，所以选{x}。|{y}不对，答案是{x}。",
}
# What gives none, though it names {x}.
NONE: Final = {
    "en": """
        {x}?|{x}? I doubt it.|Is it {x}?|Could it be {x}?|Maybe {x}.|Perhaps {x}|Possibly {x}.
        |It might be {x}.|It could be {x}.|I doubt that it is {x}.|I don't think the answer is {x}.
        |It is not {x}.|Not {x}.|{x} is wrong.|{x} is not the answer.|Anything but {x}.|All but {x}.
        |{x} or {y}|{x} and {y}|Either {x} or {y}.|Both {x} and {y}.|Neither {x} nor {y}.|{x}, {y}
        |{x}/{y}|{x}\n{y}|Answer: {x} or {y}|The answer is {x} or {y}.|Answer: {x}, maybe {y}
        |Answer: {x} (or {y})|My friend said {x}.|My friend said the answer is {x}.
        |"{x}" is what most people say.|Some say the answer is {x}.|According to my friend, {x}.
        |You might think the answer is {x}.|If it rains, {x}.|{x} if it rains.|{x} unless it rains.
        |If it rains, the answer is {x}.|I am not sure, but {x}.|{x}, but I am not sure.
        |{x}. Not sure, though.|{x}. Just kidding.|{x} (just kidding)|{x}, right?|{x}. Or is it {y}?
        |The answer is {x}. Wait, no.|Answer: {x}. No.|Answer: {x}\nThat is wrong.
        |Answer: {x}. But {y} is right.|Answer: {x}. However, {y} is also correct.
        |Answer: {x}. {y} is better.|Wrong answer: {x}|The wrong answer is {x}.|The opposite of {x}.
        |{x} seems right.|{x} looks right.|{x} is tempting.|I was going to say {x}.
        |I would have said {x}.|I used to think it was {x}.|~~{x}~~|❌ {x}|\\boxed{{{x}}} is wrong.
        |\\boxed{{{x}}} or \\boxed{{{y}}}|It is not \\boxed{{{x}}}.|<answer>{x} or {y}</answer>
        |<answer>{x}</answer> I doubt it.|Most people choose {x}.|It is unlikely that the answer is {x}.
        |{x} is a distractor.|Is the answer {x}|Why {x}?|Answer: {x}. I changed my mind.
        |Answer: {x}. Hmm, I am confused.|What about {x}?|{x} is what they want you to think.
        """,
    "de": """
        {x}?|Vielleicht {x}.|Möglicherweise {x}|Nicht {x}.|{x} ist falsch.|{x} oder {y}|{x} und {y}
        |Weder {x} noch {y}.|Ich glaube nicht, dass es {x} ist.|Ist es {x}?
        |Ich bin nicht sicher, aber {x}.|{x}? Eher nicht.|Ich bezweifle, dass es {x} ist.
        |Mein Freund sagt {x}.|Es könnte {x} sein.|Wenn es regnet, {x}.|Antwort: {x}. Quatsch.
        |Antwort: {x} oder {y}|Die Antwort ist nicht {x}.|Angeblich ist die Antwort {x}.
        |Alles außer {x}.
        """,
    "fr": """
        {x} ?|Peut-être {x}.|Ce n'est pas {x}.|{x} est fausse.|{x} ou {y}|{x} et {y}|Ni {x} ni {y}.
        |Est-ce {x} ?|Je ne pense pas que ce soit {x}.|Je doute que ce soit {x}.
        |Mon ami dit que la réponse est {x}.|Si c'est vrai, {x}.|Ça pourrait être {x}.
        |La réponse n'est pas {x}.|Réponse : {x}. Non.|Tout sauf {x}.
        """,
    "es": """
        ¿{x}?|Quizás {x}.|Tal vez {x}.|No es {x}.|{x} es incorrecta.|{x} o {y}|{x} y {y}|Ni {x} ni {y}.
        |¿Es {x}?|No creo que sea {x}.|Dudo que sea {x}.|Mi amigo dice que la respuesta es {x}.
        |Podría ser {x}.|La respuesta no es {x}.|Respuesta: {x}. Mentira.|Si llueve, {x}.
        |Todas menos {x}.
        """,
    "zh": """
        {x}？|也许是{x}。|可能是{x}。|不是{x}。|{x}是错误的。|{x}或{y}|{x}和{y}|是{x}吗？|我不确定，{x}。|{x}？我怀疑。|有人说是{x}。
        |如果下雨，选{x}。|不选{x}|答案不是{x}。|大概是{x}吧|除了{x}
        """,
}
BEFORE: Final = (
    "Let me think about it.\n\n",
    "The question asks for one thing only. ",
    "Step 1: Look at the options.\nStep 2: Compare them.\n\n",
)
BEHIND: Final = (
    "",
    " It is the only one that fits what the question says.",
    "\n\nExplanation: This follows from the definition that was given in the text.",
    "\n\nHope this helps!",
    " Would you like me to explain further?",
    "\n\nQuestion: What comes next?",
)


def _entries(table: str) -> list[str]:
    return [entry.strip(" ") for entry in table.replace("\n        ", "").strip().split("|") if entry.strip()]


def option(random: Random, at: int, options: Sequence[str], *, plain: bool = False) -> str:
    """The option at a place, in one of the forms in which people write it."""
    forms = _PLAIN_FORMS if plain else _FORMS
    letter = ascii_uppercase[at]
    return random.choice(forms).format(l=letter, s=letter.lower(), t=options[at])


def written(random: Random, table: dict[str, str], x: int, y: int, options: Sequence[str]) -> str:
    """An output of one of the ``table``'s statements about the options at ``x`` and ``y``."""
    language = random.choice(sorted(table))
    pattern = random.choice(_entries(table[language]))
    plain = table is not GIVES
    letter = ascii_uppercase[x]
    return pattern.format(
        x=option(random, x, options, plain=plain),
        y=option(random, y, options, plain=plain),
        l=letter,
        s=letter.lower(),
    )


def gives(random: Random, x: int, y: int, options: Sequence[str]) -> str:
    """An output that gives the option at ``x``."""
    turn = random.random() < 0.25
    text = written(random, TURNS if turn else GIVES, x, y, options)
    before = random.choice(BEFORE) if random.random() < 0.2 else ""
    behind = random.choice(BEHIND) if text.endswith((".", "。")) else random.choice(BEHIND[2:4])
    return before + text + (behind if random.random() < 0.5 else "")


def gives_none(random: Random, x: int, y: int, options: Sequence[str]) -> str:
    """An output that names the option at ``x`` and gives none."""
    before = random.choice(BEFORE) if random.random() < 0.2 else ""
    return before + written(random, NONE, x, y, options)
