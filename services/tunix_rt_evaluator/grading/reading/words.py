# ruff: noqa: RUF001 (signs and letters of other scripts are meant)
"""Words of the languages that models answer in most, as parts of regular expressions (verbose, any case).

Those that lead to an answer; around a number those that lead to it, that make another amount of it, and that
only suppose it; and those by which people say which option they choose.
"""

from __future__ import annotations

from typing import Final

ANSWER: Final = r"""
(?: \b(?:antwort|r[ée]ponse|respuesta|resposta|risposta|antwoord|svar(?:et)?|vastaus|odpowied[zź]
  |odpov[eě][dď]|r[aă]spuns(?:ul)?|v[aá]lasz|yan[iı]t|cevap|jawaban(?:nya)?|[dđ]áp\ án|ответ|відповідь
  |απάντηση|(?:ال)?(?:[إا]جابة|جواب)|پاسخ|תשובה
)
  |उत्तर|答案|回答|解答|答え|正解|정답|답변|답|คำตอบ
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
  |[—–]|应该是|應該是|就是|是|为|為|は|が|은|는
)"""
"""What leads from ANSWER to the answer, in a sentence."""

COPULA: Final = r"""
(?: \b(?:is|are|was|were|be|equals?(?:\ to)?|makes?|gives?|totals|becomes?|comes?\ to|amounts?\ to
  |adds?\ up\ to
  |ist|sind|war|lautet|beträgt|ergibt
  |est|sont|vaut|fait|égale
  |es|son|é|são|è|sono|fa
  |это|равно|равна|равен
  |هو|هي|يساوي|olur|adalah|là
)\b
  |等于|等於|就是|是|为|為|は|=
)"""
"""What stands between what is asked for and its value."""

MINUS: Final = r"(?:\b(?:minus|moins|menos|meno|минус|eksi|سالب|ناقص)\b)"
"""What makes the number behind it negative."""

UNSPACED_MINUS: Final = r"(?:负|負|マイナス|마이너스)"
"""The same, in scripts that do not set words apart."""

PERCENT: Final = r"""
(?: per[ ]?cent|percentage\ points?|prozent|pour\ cent|por\ cien(?:to)?|por\ cento|per\ cento
  |процент(?:а|ов)?|パーセント|퍼센트|بالمئة|بالمائة|في\ المئة|في\ المائة
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
(?: \b(?:no|not|cannot|never|neither|nor|without|except|excluding|besides|unlike|isnt|wasnt|cant|wont
  |instead\ of|rather\ than|as\ opposed\ to|other\ than|rules?\ out|ruled\ out|ruling\ out
  |eliminat(?:e[sd]?|ing)|reject(?:s|ed)?|discard(?:ed)?|wrong|incorrect|false|impossible|invalid|too
  |nicht|kein(?:e[mnrs]?)?|weder|statt|ohne|falsch
  |ne|pas|ni|non|sans|jamais|faux|fausse|incorrecte?
  |nunca|incorrect[oa]|falso|não|nem|sem|errad[oa]|né|senza|sbagliat[oa]|errat[oa]
  |не|нет|ни|без|неверно|неверный|неправильно|неправильный
  |niet|geen|nie|değil|ليس|ليست|غير|خطأ
)\b (?!\ (?:doubt|problem)\b)
  |n['’]t\b|\bn['’]
  |不|非|没|沒|未|无|無|错|錯|排除|ない|間違|아니|아닙|않|틀
)"""
"""What denies the value or the option that stands in the same clause."""

COMPARED: Final = r"""
(?: \b(?:(?:more|less|greater|fewer|larger|smaller|higher|lower|bigger|longer|shorter|older|younger)
    (?:\ \w+)?\ than
  |above|below|over|under|beyond|exceed(?:s|ing)?|almost|nearly|barely|at\ least|at\ most|up\ to|minimum
  |maximum|min|max|between|from|through|until|till
  |as\ (?:many|much|few|little|high|low|long|large|small)\ as
  |(?:mehr|weniger|größer|kleiner|höher|niedriger)\ als|mindestens|höchstens|über|unter|fast|bis(?:\ zu)?
  |zwischen|von
  |(?:plus|moins)\ (?:de|que)|au\ (?:moins|plus)|presque|entre|jusqu['’]à|(?:sup|inf)érieure?\ à
  |(?:más|menos|mayor|menor)\ (?:de|que)|al\ menos|como\ (?:mínimo|máximo)|casi|hasta
  |(?:mais|menos|maior|menor)\ (?:de|do\ que|que)|pelo\ menos|no\ máximo|quase|até
  |(?:più|meno|maggiore|minore)\ (?:di|che)|almeno|al\ massimo|quasi|tra|fra|fino\ a
  |больше|меньше|более|менее|свыше|до|почти|между|от
  |(?:أكثر|أقل|أكبر|أصغر)\ من|بين|على\ الأقل
)\b (?:\ or\ equal(?:\ to)?)?
  |大于|大於|小于|小於|超过|超過|至少|至多|最多|最少|低于|低於|高于|高於|多于|少于|接近|将近|介于|从|到|至
  |分之
)"""
"""What stands before a bound, or before an end of a range."""

UNSPACED_CHANGES: Final = r"""
(?: [十百千万亿億兆萬만억조半多余餘几幾成割折] | 分之 | 以上 | 以下 | 以内 | 以內 | 未満 | 未满 | 超
  | 이상 | 이하 | 미만 | 초과 | 에서 | 부터 | から | 到 | 至
)"""
"""What changes the number beside it, in scripts that do not set words apart."""

REASON: Final = r"""
(?: \b(?:because|since|due\ to|(?<!\bis\ )given(?!\ [a-z](?![^\W_]))|as|which|where|who|that\ is|that['’]s
  |i\.e|e\.g|namely|considering
  |weil|denn|da|car|parce\ que|puisque|porque|pues|pois|perch[ée]|потому|так\ как|لأن)\b
  |因为|因為|由于|由於|なぜなら|왜냐하면
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
  |\b(?:если|иначе|إذا)\b|如果|若|もし|만약
)"""
"""What makes a value hold only sometimes."""

CORRECTION: Final = r"""
(?: \b(?:wait|actually|correction|scratch\ that|on\ second\ thoughts?|my\ mistake|i\ mean|i\ meant
  |i\ made\ an?\ (?:\w+\ )?(?:mistake|error)|let\ me\ correct
  |(?:that|this)(?:['’]s|\ is|\ was)\ (?:wrong|incorrect|not\ (?:right|correct))
  |warte|moment\ mal|eigentlich|en\ fait|attendez|en\ realidad|espera|na\ verdade|espere|in\ realtà|aspetta
  |подожди(?:те)?|на\ самом\ деле )\b
  |^\W*(?:no|nope|hmm+|sorry|oops|nein|non|нет)\b\s*[,.!:—–-]
  |等等|不对|不對|其实|待って|やっぱり|아니
)"""
"""What begins a correction, which counts for more than what stands before it."""

LEAD: Final = r"""
(?: \b(?:is|are|was|were|be|been|being|equals?|equal\ to|to\ be|means?|means?\ that|remains?|left|leave[sd]?
  |leaving|yields?|produces?|i|so|thus|hence|then|therefore|indeed|simply|yes|now|also|still|only|have|has
  |had|having|['’]s|['’]ll\ be|(?:make|take|give|come|become)s?|making|taking|giving|made|took|gave
  |given\ me|comes\ (?:out\ )?to|becomes|gets?|got|gotten|getting|obtain(?:s|ed)?|find|found|finds|think
  |thinks|believe|calculate[sd]?|conclude[sd]?|cost(?:s|ing)?|charge[sd]?|paid|pay(?:s|ing)?|spen[dt]s?
  |spending|earn(?:s|ed|ing)?|save[sd]?|saving|owe[sd]?|buys?|bought|buying|sells?|sold|selling|needs?
  |needed|requires?|required|want(?:s|ed)?|use[sd]?|using|eats?|ate|eaten|drinks?|drank|reads?|writes?|wrote
  |runs?|ran|walk(?:s|ed)?|drives?|drove|driven|rides?|rode|fl(?:y|ies|ew)|travel(?:l?ed|s)?|swims?|swam
  |weigh(?:s|ed)?|lasts?|lasted|sleeps?|slept|stay(?:s|ed)?|lives?|lived|collect(?:s|ed)?|gather(?:s|ed)?
  |contain(?:s|ed)?|holds?|held|fits?|plant(?:s|ed)?|grows?|grew|grown|bak(?:es?|ed)|scor(?:es?|ed)|won
  |wins?|receiv(?:es?|ed)|keeps?|kept|catch|caught|picks?|picked|solv(?:es?|ed)|answer(?:s|ed)?
  |complet(?:es?|ed)|finish(?:es|ed)?|total(?:s|l?ed|l?ing)?|amounts?\ to|adds?\ up\ to|work(?:s|ed)?
  |play(?:s|ed)?|watch(?:es|ed)?|order(?:s|ed)?|brings?|brought|carr(?:y|ies|ied)|deliver(?:s|ed)?
  |fill(?:s|ed)?|built|builds?|sees?|saw|seen|count(?:s|ed)?|draws?|drew|drawn|paint(?:s|ed)?
  |donat(?:es?|ed)|deposit(?:s|ed)?|withdr[ae]w|typed?|climb(?:s|ed)|raised|borrow(?:s|ed)|lifted|hiked
  |jogged|biked|cycled|threw|shot|hit|poured|packed|sewed|knitted|wrapped|mailed|posted|recorded|taught
  |studied|practiced|learned|moved|loaded|stacked|cut|shared|lent|gained|swept|sewn|caught|hosted|visited
  |called|passed|issued|published|rented|leased|loaned|invested|tipped|(?:total|sum|number|count)\ to
  |(?:evaluates|simplifies|reduces|works\ out)\ to|put|puts|sen[dt]s?|add(?:s|ed)|download(?:s|ed)?
  |print(?:s|ed)?|wash(?:es|ed)?|clean(?:s|ed)?|cooks?|cooked|reach(?:es|ed)?|cover(?:s|ed)?|served?|serves
  |hire[sd]?|invit(?:es?|ed)|attend(?:s|ed)?|produced|us|usd|eur|gbp|chf|inr|jpy|cny|rmb|aud|cad|rs|rm|kr
  |to\ (?:reach|total)|for|at|after|in|with|of\ (?:about|exactly|only)|(?:total|average|mean|sum|result
  |answer|value|amount|cost|price|profit|balance|number|distance|length|width|height|weight|area|volume
  |perimeter|speed|age|score|rate|median|count|income|salary|probability|product)\ of
  |ist|sind|war|waren|wird|sein|beträgt|lautet|ergibt|kostet|hat|habe[n]?|hatte[n]?|braucht|brauchen|bleiben
  |bleibt|gibt\ es|gibt|bekommt|verdient|bezahlt|zahlt|macht|etwa|ungefähr|circa|ca|rund|genau|nur|insgesamt
  |also|noch
  |est|sont|était|sera|vaut|fait|font|égale?|à|a|ai|ont|avait|aura|coûte|reste(?:nt)?|restera|faut|gagne
  |paie|dépense|y\ a|environ|exactement|seulement|donc|obtient|trouve|total\ de
  |es|son|era|será|fue|vale|cuesta|tiene[n]?|tenía|quedan?|hay|gana|paga|gasta|necesita|cuestan|total\ de
  |unos
  |é|são|foi|será|custa|tem|têm|tinha|restam?|sobram?|há|ganha|gasta|precisa|aproximadamente|exatamente
  |apenas
  |è|sono|costa|ha|hanno|aveva|restano|rimangono|ci\ sono|guadagna|spende|circa|esattamente|solo|quindi|fa
  |fanno
  |это|равно|равна|равен|равны|составляет|составит|есть|осталось|остал[аи]сь|останется|стоит|имеет|получится
  |получаем|у\ \w+|всего|было|будет|примерно|около|ровно|итого|яблок
  |هو|هي|يساوي|تساوي|لديه|لديها|بقي|حوالي|تقريبا
  |is|zijn|was|heeft|hebben|kost|blijven|er\ zijn|ongeveer|är|har|er|jest|są|ma|zostało|kosztuje|olur|kaldı
  |vardır|eder|adalah|ada|memiliki|sisa|là|có|còn|bằng|khoảng
)\b
  |है|हैं
)"""
"""What stands right before a number that is the answer: verbs of being, having and the like."""

UNSPACED_LEAD: Final = r"""
(?: 等于|等於|是|为|為|有|共|计|計|剩下|剩余|还剩|剩|得到|得出|得|了|约|約|大约|花费|花|需要|需|要|买|卖|给
  |用|付|赚|省|结果|合计|合計|总共|一共|总计|还有|只有|答|元|能|可以|就
  |は|が|を|で|に|と|も|残り|全部で|合計で|答え
  |은|는|이|가|을|를|로|총|약|모두|합계|남은
)"""
"""The same, in scripts that do not set words apart."""

UNSPACED_BEHIND: Final = r"""
(?: 倍|平方根|次方|立方根|阶乘|倒数|绝对值|两倍|一半|半分|[二三]?乗|より|보다|제곱|절반|배(?!송)|두\ 배|以上
  |以下|未満|未满|이상|이하|미만|초과
)"""
"""What makes another amount of a number wherever it stands behind it, in these scripts."""

FILLER: Final = r"""
(?: the|an?|about|approximately|approx\.?|around|roughly|exactly|precisely|only|just|now|then|also|still
  |thus|therefore|hence|indeed|simply|actually\ only|altogether|together|already|currently|finally|remaining
  |another\ way|nearly\ exactly|(?:a\ )?(?:\w+\ )?(?:total|profit|sum|average|mean|amount|price|cost
  |discount|distance|score|salary|income|speed)\ of
  |us|usd|eur|gbp|chf|inr|jpy|cny|rmb|aud|cad|rs\.?|rm|kr\.?|nur|genau|etwa|ungefähr|insgesamt|noch|rund
  |environ|exactement|seulement|encore|unos|unas|sólo|solo|ancora|ainda|exatamente|exactamente|circa|ca\.?
  |ровно|примерно|ещё|you|him|her|them|me|(?:(?<=take\ )|(?<=takes\ )|(?<=took\ )|(?<=gives\ )|(?<=gave\ )
  |(?<=give\ )|(?<=cost\ )|(?<=costs\ )|(?<=owes\ )|(?<=owe\ )|(?<=paid\ )|(?<=pays\ )|(?<=pay\ )
  |(?<=leaves\ )|(?<=gets\ ))(?:the\ [a-z]+|(?-i:[A-Z][a-z]+))
)"""
"""What may stand between such a word and the number."""

MONTH: Final = r"""
(?: jan(?:uary)?|feb(?:ruary)?|march|april|june|july|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?
  |dec(?:ember)?|(?-i:May)
  |januar|februar|märz|mai|juni|juli|oktober|dezember
  |janvier|février|mars|avril|juin|juillet|août|septembre|octobre|novembre|décembre
  |enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre
  |janeiro|fevereiro|março|maio|junho|julho|setembro|outubro|novembro|dezembro
  |gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre
  |января|февраля|марта|апреля|мая|июня|июля|августа|сентября|октября|ноября|декабря
)"""

FRACTION: Final = r"""
(?: half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|hundredths
  |thousandths
  |halb\w*|einhalb|drittel|viertel|achtel|hälfte|demie?|moitié|tiers|quarts?|medi[oa]|mitad|tercios?
  |cuartos?
  |mei[oa]|metade|mezz[oa]|metà|terz[oi]|quart[oi]|половин\w+|трет\w+|четверт\w+|pół\w*|połow\w+|helft
  |yarısı|yarım
  |nửa|rưỡi|setengah|نصف|ربع|ثلث|आधा|आधे
)"""
"""Parts of a whole."""

CHANGE: Final = rf"""
(?: \b(?: {FRACTION}|times|folds?|\w+fold|than|twice|thrice|double[ds]?|triple[ds]?|quadruple[ds]?|tripling
  |doubling|halve[ds]?|squares?\ of|squared|cubed|cubes?\ of|(?:square|cube)?\ ?roots?\ of|raised\ to
  |(?:to\ the\ )?powers?\ of|to\ the\ power|factorial|logarithm|log|ln|exp|sqrt|a?(?:sin|cos|tan)h?|sine
  |cosine|tangent|abs|absolute|floor|ceil|mod(?:ulo)?|lim
  |(?:opposite|inverse|reciprocal|complement|multiples?|factors?|divisors?|percent|prozent)\ of|negative
  |divides?|divisible|divided|multiplied|plus|minus|more\ or\ less|give\ or\ take|estimate
  |mal|mehr|weniger|hoch|zum\ quadrat|doppelt\w*|doppelte\w*|dreifach\w*|als|fois|moins|carré|veces|más
  |menos|cuadrado|doble|triple|vezes|mais|quadrado|dobro|volte|più|meno|quadrato|doppio
  |раз|раза|больше|меньше|более|менее|квадрат\w*|куб\w*|удвоен\w*|корень|keer|meer|minder|gånger|gange|razy
  |razem|więcej|mniej|krát|kat|katı|kere|kez|fazla|yüzde|lần|hơn|kali|lebih|kurang
  |أضعاف|ضعف|مرات|مرة|أكثر|أقل|مربع|جذر )\b
  |[гд]е?गुना|गुना|दोगुन|\s(?:से|के|का)(?:\s|$)|\sअधिक
)"""
"""What makes another amount of a number, or of what is said to be it."""

BEHIND: Final = r"""
(?: \b(?: almost|nearly|sometimes|usually|often|rarely|cases?|nan|null|todo|tb[da]|citation|out\ of|dozens?
  |less|fewer|lower|higher|extra|additional|short|shy|off|under
  |(?<!left\ )over(?!\ the\ (?:\w+\ )?(?:day|week|month|year)s?\b)|above|below|behind|ahead|beyond|beneath
  |upwards?|up|down|counting|change|something|some|others?|too|binary|hexadecimal|hex|octal|base|remainder
  |rem|residue|mille|bps|ppm|ppb|basis\ points?|debt|deficit|in\ the\ red
  |at\ (?:the\ )?(?:very\ )?(?:best|worst|least|most)|tops|max(?:imum)?|minimum|min\.|etc|else|guess
  |b\.?c\.?e?\.?|a\.?d\.?|the\ fourth|minus|und\ ein
  |before\ (?:\w+\ )?(?:tax|taxes|discount|shipping|tips?|fees)|taller|older|younger|heavier|longer|faster
  |larger|bigger|greater|shorter|smaller|cheaper|later|earlier|away\ from )\b
)"""
"""The same, only where it stands behind the number."""

FIRST_BEHIND: Final = rf"""
(?: {MONTH}|de\ {MONTH}|of\ {MONTH}|more\ (?:as|of|or)|and|or|tens?|scores?|gross|pairs?|couples?|odd|ish
  |point|comma|dozens?|hundreds?|thousands?|millions?|billions?|trillions?|log|ln|pi|et|und|y|e|plus
  |more\ and|other|rest|reste|x|roots?|powers?|grade|digits?|sided?|decimals?|significant
)"""
"""The same, only where it stands right behind the number."""

NUMBER_WORD: Final = r"""
(?: one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen
  |seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|zero
  |none|nil|first|last|other|next
)"""

SUPPOSED: Final = r"""
(?: \b(?:suppose[ds]?|supposing|assum\w+
  |(?:let|try|trying|test|say|take|consider)\ (?:[a-z]|\d+|[\ue000-\ue0c8])\b|imagine|guess\w*|might|maybe
  |perhaps|possibly|probably|likely|possible|(?:could|can)\ be|used\ to|depends?|may\ (?:be|well)|either
  |whether|e\.?g|for\ (?:example|instance)|such\ as|unknown|undefined|undetermined|unsure|uncertain|n/a|none
  |nothing|dne|no\ (?:solution|answer|idea)|error|unable|insufficient|not\ (?:enough|sure|certain)
  |(?:do\ not|don['’]t)\ know|give\ or\ take|more\ or\ less|as\ an\ (?:ai|artificial|assistant|language)
  |language\ model|approach(?:es)?|tends?\ to|converges?\ to|given\ (?:number|value)
  |(?:anything|all|everything)\ but|among|(?:question|problem|exercise|text|statement|prompt|user)\ (?:asks?
  |says?|states?|gives?|mentions?|tells?|wants?)
  |vielleicht|wahrscheinlich|möglicherweise|angenommen|peut-être|probablement|supposons|quizás?|tal\ vez
  |probablemente|talvez|provavelmente|forse|probabilmente|возможно|вероятно|может\ быть|пусть|ربما
  |misschien|być\ może|może|belki|có\ thể|có\ lẽ|mungkin|barangkali )\b
  |\bgiven\ that\b[^,]*$
  |可能|也许|或许|大概是|假设|假設|たぶん|多分|おそらく|かもしれ|아마|शायद
)"""
"""What only supposes or tries a value, or says that there is none."""

REFUSAL: Final = r"""
(?: \b(?: as\ an?\ (?:ai|artificial|language\ model|assistant)|(?:i|we|one)\ (?:cannot|can\ ?not|can['’]t
  |could\ not|couldn['’]t|am\ unable|am\ not\ able|don['’]t\ know|do\ not\ know|do\ not\ have
  |don['’]t\ have)|i['’]m\ (?:unable|not\ (?:able|sure|certain)|sorry)
  |(?:it\ is|it['’]s)\ (?:impossible|not\ possible|unclear)
  |cannot\ be\ (?:determined|answered|solved|computed|calculated|known)
  |(?:not\ enough|insufficient|missing)\ (?:information|data|context|details?)
  |(?:need|provide|require)\ (?:\w+\ )?more\ (?:information|data|context|details?)
  |ich\ (?:kann|weiß|bin)\ (?:\w+\ )?nicht|je\ ne\ (?:peux|sais|suis)|no\ (?:puedo|sé|es\ posible)
  |não\ (?:posso|sei|é\ possível)|non\ (?:posso|so|è\ possibile)|не\ (?:могу|знаю) )\b
  |无法|無法|不能确定|我不知道|信息不足|わかりません|分かりません|できません|모르겠|알\ 수\ 없|لا\ (?:أعرف
  |أستطيع|يمكن)
)"""
"""What refuses an answer, or says that there can be none."""

_ENGLISH: Final = """
the this that it its it's that's is be must should would will has have to i i'd i'll i'm am me my our we us
in of for on with as by answer answers option options choice choices letter alternative solution response
statement selection pick one number correct right true best final most only likely probable suitable
appropriate accurate proper definitely certainly clearly surely obviously undoubtedly probably indeed simply
just evidently really so thus therefore hence then consequently accordingly finally overall ultimately
conclusion think believe say choose chose select selected chosen take go going opt conclude know confident
certain sure convinced vote settle question problem quiz item exercise above given listed provided following
two three four five these those here all among from out means follows leaves leaving left remains remaining
namely yes yeah ok okay well alright great now corresponds matches represents reads equals stands called
labeled labelled marked let's very pretty quite actually absolutely completely view opinion fact course
elimination
"""
_GERMAN: Final = """
die der das den dem ist lautet wäre muss müsste sollte sein heißt antwort lösung option möglichkeit variante
auswahl antwortmöglichkeit aussage buchstabe wahl richtig richtige richtigen korrekt korrekte korrekten
beste zutreffend zutreffende endgültige finale ich denke glaube sage wähle nehme entscheide mich für würde
wählen nehmen sagen bin sicher überzeugt dass also daher somit folglich deshalb demnach damit es eindeutig
definitiv sicherlich natürlich klar wahrscheinlich höchstwahrscheinlich nur auf diese frage von hier ja
meine unsere bleibt stimmt im ergebnis fazit
"""
_FRENCH: Final = """
la le l les est c ce doit être serait sera réponse bonne correcte correct exacte exact juste meilleure
option choix lettre proposition solution je choisis pense crois dirais prends sélectionne opte suis sûr sûre
certain certaine convaincu convaincue que donc ainsi alors par conséquent finalement en conclusion il s agit
de d à cette question pour ma mon notre finale définitive bien certainement clairement évidemment
probablement seule oui reste vraie avis
"""
_SPANISH: Final = """
la el lo es sería debe ser será respuesta correcta correcto opción alternativa letra elección inciso
solución mejor verdadera única final yo elegiría escogería elijo escojo selecciono creo pienso diría digo
opto por marco que entonces así tanto consecuencia estoy seguro segura de claramente definitivamente
probablemente seguramente ciertamente mi nuestra a esta pregunta para queda sí en
"""
_OTHERS: Final = """
il è sia risposta corretta giusta esatta opzione lettera scelta scelgo credo penso che direi quindi dunque
perciò definitivamente probabilmente mia o é resposta correta certa opção escolho acho creio diria portanto
logo então minha seria deve het antwoord juiste optie ik kies denk dat dus ответ правильный верный вариант
это буква я выбираю думаю считаю что значит поэтому следовательно итак мой правильно верно svaret är rätt
cevap doğru poprawna odpowiedź to jest
"""
WORDS: Final = frozenset(f"{_ENGLISH} {_GERMAN} {_FRENCH} {_SPANISH} {_OTHERS}".split())
"""Words of scripts that set words apart."""

UNSPACED_WORDS: Final = r"""
(?: 正确|正確|最佳|最终|最終|最|最有?可能|很可能|很有可能|答案|选项|選項|选择|選擇|应该?|應該?|选|選|是|为
  |為|就|的|所以|因此|故|综上|我们?|我們|认为|認為|觉得|覺得|会|會|即|項|项|這|这|道|题|題|本|那么|那麼|于是
  |可以|得出|得到|显然|顯然|肯定|一定|对|對|而|确定|能
  |答え|解答|正解|回答|選択肢|選択|選び|記号|正しい|正しく|したがって|よって|なので|ゆえに|つまり|結論
  |もっとも|最も|適切|思い|思う|考え|です|だ|である|ます|しま|は|が|を|と|の|な|番|私
  |정답|답|선택지|선택|저는|제|생각|따라서|그러므로|옳습니다|맞습니다|합니다|입니다|이다|예요|이에요|은|는
  |이|가|을|를|번|것
)"""
"""Words of scripts that do not, as a part of a regular expression."""

CONTRAST: Final = (
    r"(?: \b(?:but|sondern|sino|mais|mas|ma|bensì|rather|instead|plutôt|doch)\b | 而是 | 但是?| 但 )"
)
"""What sets an option against one that was denied before."""

QUESTION: Final = r"""
(?: ^[\s"'(*]*(?:is|are|should|would|must|will|can|could|shall|do|does|did|has|have)\s+(?:it|the|this|that|i
  |we)\b
  |^[\s"'(*]*(?:ist|wäre|muss|sollte)\s+(?:es|das|die|der)\b|\best-ce\b|\b(?:would|should|'d)\s+have\b
  |\bhave\s+to\s+say\b )
"""
"""What makes a question of such words, or a thing that was not done."""
