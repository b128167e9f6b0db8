# ruff: noqa: RUF001 (letters of other scripts are meant)
"""Words of the languages that models answer in most, as parts of regular expressions (verbose, any case)."""

from __future__ import annotations

from typing import Final

ANSWER: Final = r"""
(?: \b(?:
        antwort | r[ée]ponse | respuesta | resposta | risposta | antwoord | svar(?:et)? | vastaus
      | odpowied[zź] | odpov[eě][dď] | r[aă]spuns(?:ul)? | v[aá]lasz | yan[iı]t | cevap | jawaban(?:nya)?
      | [dđ]áp\ án | ответ | відповідь | απάντηση | (?:ال)?(?:[إا]جابة|جواب) | پاسخ | תשובה
    )
  | उत्तर | 答案 | 回答 | 解答 | 答え | 正解 | 정답 | 답변 | 답 | คำตอบ
)"""
"""What "answer" is, English aside, which is a word of many other uses."""

FINAL: Final = r"""
(?:[ \t]+(?:
    finale? | definitiva? | corre[ck]ta? | correcte | correto | corretta | giusta | exacta?
  | النهائية | الصحيحة | النهائي | الصحيح
))?"""
"""What may stand behind ANSWER and belongs to it, such as "final" or "correct"."""

IS: Final = r"""
(?: \b(?:is|was|would\ be|should\ be|must\ be|ist|lautet|w[äa]re|est|serait|es|sería|é|seria|è|sarebbe|är|er
      |jest|това|это|это\ будет|є|είναι|هي|هو|adalah|là|este)\b
  | [—–] | 应该是 | 應該是 | 就是 | 是 | 为 | 為 | は | が | 은 | 는
)"""
"""What leads from ANSWER to the answer, in a sentence."""

COPULA: Final = r"""
(?: \b(?:
        is|are|was|were|be|equals?(?:\ to)?|makes?|gives?|totals|becomes?|comes?\ to|amounts?\ to
      | adds?\ up\ to
      | ist|sind|war|lautet|beträgt|ergibt
      | est|sont|vaut|fait|égale
      | es|son|é|são|è|sono|fa
      | это|равно|равна|равен
      | هو|هي|يساوي|olur|adalah|là
    )\b
  | 等于 | 等於 | 就是 | 是 | 为 | 為 | は | =
)"""
"""What stands between what is asked for and its value."""

MINUS: Final = r"(?:\b(?:minus|moins|menos|meno|минус|eksi|سالب|ناقص)\b)"
"""What makes the number behind it negative."""

UNSPACED_MINUS: Final = r"(?:负|負|マイナス|마이너스)"
"""The same, in scripts that do not set words apart."""

PERCENT: Final = r"""
(?: per[ ]?cent | percentage\ points? | prozent | pour\ cent | por\ cien(?:to)? | por\ cento | per\ cento
  | процент(?:а|ов)? | パーセント | 퍼센트 | بالمئة | بالمائة | في\ المئة | في\ المائة
)"""
"""Hundredths."""

SCALES: Final = {
    12: r"dozens? | dutzend | douzaines? | docenas? | d[úu]zias? | дюжин[аы]? | ダース",
    10**2: r"hundreds? | hundert | 百 | 백",
    10**3: r"""thousands? | tausend | mille | mil | mila | duizend | tusen | tysi[ąe]c[ey]?
        | тысяч[аи]? | тыс\.? | 千 | 천 | ألف | آلاف | हज़ार | हजार""",
    10**4: r"万 | 萬 | 만",
    10**5: r"lakhs? | lacs? | लाख",
    10**6: r"""millions? | millionen | millones | millón | milh(?:ão|ões) | milion[ei] | miljoen | miljoner
        | миллион(?:а|ов)? | млн\.? | mio\.? | mln\.? | mn | 百万 | مليون | ملايين""",
    10**7: r"crores? | 千万 | करोड़",
    10**8: r"亿 | 億 | 억",
    10**9: r"""billions? | bn | bln | milliards? | milliarden | mrd\.? | miliard[io] | miljard(?:er)?
        | bilh(?:ão|ões) | миллиард(?:а|ов)? | млрд\.? | مليار | 十亿""",
    10**12: r"trillions? | tn | billionen | billones | триллион(?:а|ов)? | трлн\.? | 兆 | 조 | ترليون",
}
"""Words behind a number that multiply it, by what they multiply it with."""

NEGATION: Final = r"""
(?: \b(?:
        no|not|cannot|never|neither|nor|without|except|excluding|besides|unlike|isnt|wasnt|cant|wont
      | instead\ of | rather\ than | as\ opposed\ to | other\ than
      | rules?\ out | ruled\ out | ruling\ out | eliminat(?:e[sd]?|ing) | reject(?:s|ed)? | discard(?:ed)?
      | wrong|incorrect|false|impossible|invalid|too
      | nicht|kein(?:e[mnrs]?)?|weder|statt|ohne|falsch
      | ne|pas|ni|non|sans|jamais|faux|fausse|incorrecte?
      | nunca|incorrect[oa]|falso | não|nem|sem|errad[oa] | né|senza|sbagliat[oa]|errat[oa]
      | не|нет|ни|без|неверно|неверный|неправильно|неправильный
      | niet|geen|nie|değil | ليس|ليست|غير|خطأ
    )\b (?!\ (?:doubt|problem)\b)
  | n['’]t\b | \bn['’]
  | 不 | 非 | 没 | 沒 | 未 | 无 | 無 | 错 | 錯 | 排除 | ない | 間違 | 아니 | 아닙 | 않 | 틀
)"""
"""What denies the value or the option that stands in the same clause."""

COMPARED: Final = r"""
(?: \b(?:
        (?:more|less|greater|fewer|larger|smaller|higher|lower|bigger|longer|shorter|older|younger)
          (?:\ \w+)?\ than
      | above|below|over|under|beyond|exceed(?:s|ing)?|almost|nearly|barely|at\ least|at\ most|up\ to
      | minimum|maximum|min|max | between|from|through|until|till
      | as\ (?:many|much|few|little|high|low|long|large|small)\ as
      | (?:mehr|weniger|größer|kleiner|höher|niedriger)\ als
      | mindestens|höchstens|über|unter|fast|bis(?:\ zu)?|zwischen|von
      | (?:plus|moins)\ (?:de|que)|au\ (?:moins|plus)|presque|entre|jusqu['’]à|(?:sup|inf)érieure?\ à
      | (?:más|menos|mayor|menor)\ (?:de|que)|al\ menos|como\ (?:mínimo|máximo)|casi|hasta
      | (?:mais|menos|maior|menor)\ (?:de|do\ que|que)|pelo\ menos|no\ máximo|quase|até
      | (?:più|meno|maggiore|minore)\ (?:di|che)|almeno|al\ massimo|quasi|tra|fra|fino\ a
      | больше|меньше|более|менее|свыше|до|почти|между|от
      | (?:أكثر|أقل|أكبر|أصغر)\ من|بين|على\ الأقل
    )\b (?:\ or\ equal(?:\ to)?)?
  | 大于 | 大於 | 小于 | 小於 | 超过 | 超過 | 至少 | 至多 | 最多 | 最少 | 低于 | 低於 | 高于 | 高於 | 多于
  | 少于 | 接近 | 将近 | 介于 | 从 | 到 | 至 | 分之
)"""
"""What stands before a bound, or before an end of a range."""

UNSPACED_CHANGES: Final = r"""
(?: [十百千万亿億兆萬만억조半多余餘几幾成割折] | 分之 | 以上 | 以下 | 以内 | 以內 | 未満 | 未满 | 超
  | 이상 | 이하 | 미만 | 초과 | 에서 | 부터 | から | 到 | 至
)"""
"""What changes the number beside it, in scripts that do not set words apart."""

REASON: Final = r"""
(?: \b(?:because|since|due\ to|(?<!\bis\ )given(?!\ [a-z](?![^\W_]))
      |as|which|where|who|that\ is|that['’]s|i\.e|e\.g
      |namely|considering
      |weil|denn|da|car|parce\ que|puisque|porque|pues|pois|perch[ée]|потому|так\ как|لأن)\b
  | 因为 | 因為 | 由于 | 由於 | なぜなら | 왜냐하면
)"""
"""What begins a reason, which is no part of the answer."""

CONCLUSION: Final = r"""
(?: \b(?:(?<!or\ )so(?!\ far)|thus|therefore|hence|consequently|daher|donc|luego|portanto|quindi)\b
  | \b(?:поэтому|значит)\b | 所以 | 因此 | 故 | よって | 따라서
)"""
"""What begins a conclusion, for which what stands before was only the way."""

CONDITION: Final = r"""
(?: \b(?:if|when|unless|otherwise|else|depending|assuming|provided|(?:as|given)\ [a-z](?![^\W_])
      |wenn|falls|sonst|si|se|sinon)\b
  | \b(?:если|иначе|إذا)\b | 如果 | 若 | もし | 만약
)"""
"""What makes a value hold only sometimes."""

CORRECTION: Final = r"""
(?: \b(?:wait|actually|correction|scratch\ that|on\ second\ thoughts?|my\ mistake|i\ mean|i\ meant
      | i\ made\ an?\ (?:\w+\ )?(?:mistake|error)|let\ me\ correct
      | (?:that|this)(?:['’]s|\ is|\ was)\ (?:wrong|incorrect|not\ (?:right|correct))
      | warte|moment\ mal|eigentlich|en\ fait|attendez|en\ realidad|espera|na\ verdade|espere
      | in\ realtà|aspetta
      | подожди(?:те)?|на\ самом\ деле )\b
  | ^\W*(?:no|nope|hmm+|sorry|oops|nein|non|нет)\b\s*[,.!:—–-]
  | 等等 | 不对 | 不對 | 其实 | 待って | やっぱり | 아니
)"""
"""What begins a correction, which counts for more than what stands before it."""
