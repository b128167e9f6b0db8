# ruff: noqa: RUF001 (letters of other scripts are meant)
"""Words around a number in the languages that models answer in most, as parts of regular expressions
(verbose, any case): those that lead to it, those that make another amount of it, and those that only suppose
it."""

from __future__ import annotations

from typing import Final

LEAD: Final = r"""
(?: \b(?:
        is|are|was|were|be|been|being|equals?|equal\ to|to\ be|means?|means?\ that|remains?|left
      |leave[sd]?|leaving|yields?|produces?
      | i|so|thus|hence|then|therefore|indeed|simply|yes|now|also|still|only|have|has|had|having|['’]s
      |['’]ll\ be
      | (?:make|take|give|come|become)s?|making|taking|giving|made|took|gave|given\ me
      |comes\ (?:out\ )?to|becomes
      | gets?|got|gotten|getting|obtain(?:s|ed)?|find|found|finds|think|thinks|believe|calculate[sd]?
      |conclude[sd]?
      | cost(?:s|ing)?|charge[sd]?|paid|pay(?:s|ing)?|spen[dt]s?|spending|earn(?:s|ed|ing)?|save[sd]?
      |saving|owe[sd]?
      | buys?|bought|buying|sells?|sold|selling|needs?|needed|requires?|required|want(?:s|ed)?|use[sd]?
      |using
      | eats?|ate|eaten|drinks?|drank|reads?|writes?|wrote|runs?|ran|walk(?:s|ed)?|drives?|drove|driven
      |rides?|rode
      | fl(?:y|ies|ew)|travel(?:l?ed|s)?|swims?|swam|weigh(?:s|ed)?|lasts?|lasted|sleeps?|slept|stay(?:s
      |ed)?|lives?|lived
      | collect(?:s|ed)?|gather(?:s|ed)?|contain(?:s|ed)?|holds?|held|fits?|plant(?:s|ed)?|grows?|grew
      |grown|bak(?:es?|ed)
      | scor(?:es?|ed)|won|wins?|receiv(?:es?|ed)|keeps?|kept|catch|caught|picks?|picked|solv(?:es?|ed)
      |answer(?:s|ed)?
      | complet(?:es?|ed)|finish(?:es|ed)?|total(?:s|l?ed|l?ing)?|amounts?\ to|adds?\ up\ to|work(?:s
      |ed)?|play(?:s|ed)?
      | watch(?:es|ed)?|order(?:s|ed)?|brings?|brought|carr(?:y|ies|ied)|deliver(?:s|ed)?|fill(?:s|ed)?
      |built|builds?
      | sees?|saw|seen|count(?:s|ed)?|draws?|drew|drawn|paint(?:s|ed)?|donat(?:es?|ed)|deposit(?:s|ed)?
      |withdr[ae]w
      | typed?|climb(?:s|ed)|raised|borrow(?:s|ed)|lifted|hiked|jogged|biked|cycled|threw|shot|hit|poured
      | packed|sewed
      | knitted|wrapped|mailed|posted|recorded|taught|studied|practiced|learned|moved|loaded
      |stacked|cut|shared|lent
      | gained|swept|sewn|caught|hosted|visited|called|passed|issued|published|rented|leased|loaned
      |invested|tipped
      | (?:total|sum|number|count)\ to|(?:evaluates|simplifies|reduces|works\ out)\ to
      | put|puts|sen[dt]s?|add(?:s|ed)|download(?:s|ed)?|print(?:s|ed)?|wash(?:es|ed)?|clean(?:s|ed)?
      |cooks?|cooked
      | reach(?:es|ed)?|cover(?:s|ed)?|served?|serves|hire[sd]?|invit(?:es?|ed)|attend(?:s|ed)?|produced
      |us|usd|eur|gbp
      | chf|inr|jpy|cny|rmb|aud|cad|rs|rm|kr|to\ (?:reach|total)|for|at|after|in|with|of\ (?:about
      |exactly|only)
      | (?:total|average|mean|sum|result|answer|value|amount|cost|price|profit|balance|number|distance
      |length|width|height
        |weight|area|volume|perimeter|speed|age|score|rate|median|count|income|salary|probability
      |product)\ of

      | ist|sind|war|waren|wird|sein|beträgt|lautet|ergibt|kostet|hat|habe[n]?|hatte[n]?|braucht|brauchen
      |bleiben|bleibt
      | gibt\ es|gibt|bekommt|verdient|bezahlt|zahlt|macht|etwa|ungefähr|circa|ca|rund|genau|nur
      |insgesamt|also|noch
      | est|sont|était|sera|vaut|fait|font|égale?|à|a|ai|ont|avait|aura|coûte|reste(?:nt)?|restera|faut
      |gagne|paie|dépense
      | y\ a|environ|exactement|seulement|donc|obtient|trouve|total\ de
      | es|son|era|será|fue|vale|cuesta|tiene[n]?|tenía|quedan?|hay|gana|paga|gasta|necesita|cuestan
      |total\ de|unos
      | é|são|foi|será|custa|tem|têm|tinha|restam?|sobram?|há|ganha|gasta|precisa|aproximadamente
      |exatamente|apenas
      | è|sono|costa|ha|hanno|aveva|restano|rimangono|ci\ sono|guadagna|spende|circa|esattamente|solo
      |quindi|fa|fanno
      | это|равно|равна|равен|равны|составляет|составит|есть|осталось|остал[аи]сь|останется|стоит|имеет
      |получится|получаем
      | у\ \w+|всего|было|будет|примерно|около|ровно|итого|яблок
      | هو|هي|يساوي|تساوي|لديه|لديها|بقي|حوالي|تقريبا
      | is|zijn|was|heeft|hebben|kost|blijven|er\ zijn|ongeveer|är|har|er|jest|są|ma|zostało|kosztuje
      | olur|kaldı|vardır|eder|adalah|ada|memiliki|sisa|là|có|còn|bằng|khoảng
    )\b
  | है | हैं
)"""
"""What stands right before a number that is the answer: verbs of being, having and the like."""

UNSPACED_LEAD: Final = r"""
(?: 等于|等於|是|为|為|有|共|计|計|剩下|剩余|还剩|剩|得到|得出|得|了|约|約|大约
  | 花费|花|需要|需|要|买|卖|给|用|付|赚|省|结果
  | 合计|合計|总共|一共|总计|还有|只有|答|元|能|可以|就
  | は|が|を|で|に|と|も|残り|全部で|合計で|答え
  | 은|는|이|가|을|를|로|총|약|모두|합계|남은
)"""
"""The same, in scripts that do not set words apart."""

UNSPACED_BEHIND: Final = r"""
(?: 倍 | 平方根 | 次方 | 立方根 | 阶乘 | 倒数 | 绝对值 | 两倍 | 一半 | 半分
  | [二三]?乗 | より | 보다 | 제곱 | 절반 | 배(?!송) | 두\ 배
  | 以上 | 以下 | 未満 | 未满 | 이상 | 이하 | 미만 | 초과
)"""
"""What makes another amount of a number wherever it stands behind it, in these scripts."""

FILLER: Final = r"""
(?: the|an?|about|approximately|approx\.?|around|roughly|exactly|precisely|only|just|now|then|also|still
      |thus|therefore
  | hence|indeed|simply|actually\ only|altogether|together|already|currently|finally|remaining
      |another\ way|nearly\ exactly
  | (?:a\ )?(?:\w+\ )?(?:total|profit|sum|average|mean|amount|price|cost|discount|distance|score|salary
      |income|speed)\ of
  | us|usd|eur|gbp|chf|inr|jpy|cny|rmb|aud|cad|rs\.?|rm|kr\.?|nur|genau|etwa|ungefähr|insgesamt|noch|rund
  | environ|exactement|seulement|encore|unos|unas|sólo|solo|ancora|ainda|exatamente|exactamente|circa|ca\.?
  | ровно|примерно|ещё|you|him|her|them|me|(?:(?<=take\ )|(?<=takes\ )|(?<=took\ )|(?<=gives\ )
      |(?<=gave\ )|(?<=give\ )|(?<=cost\ )|(?<=costs\ )|(?<=owes\ )
      |(?<=owe\ )|(?<=paid\ )|(?<=pays\ )|(?<=pay\ )|(?<=leaves\ )|(?<=gets\ ))(?:the\ [a-z]+
      |(?-i:[A-Z][a-z]+))
)"""
"""What may stand between such a word and the number."""

MONTH: Final = r"""
(?: jan(?:uary)?|feb(?:ruary)?|march|april|june|july|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?
  | dec(?:ember)?|(?-i:May)
  | januar|februar|märz|mai|juni|juli|oktober|dezember
  | janvier|février|mars|avril|juin|juillet|août|septembre|octobre|novembre|décembre
  | enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre
  | janeiro|fevereiro|março|maio|junho|julho|setembro|outubro|novembro|dezembro
  | gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre
  | января|февраля|марта|апреля|мая|июня|июля|августа|сентября|октября|ноября|декабря
)"""

FRACTION: Final = r"""
(?: half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|hundredths
      |thousandths
  | halb\w*|einhalb|drittel|viertel|achtel|hälfte|demie?|moitié|tiers|quarts?|medi[oa]|mitad|tercios?
      |cuartos?
  | mei[oa]|metade|mezz[oa]|metà|terz[oi]|quart[oi]|половин\w+|трет\w+|четверт\w+|pół\w*|połow\w+|helft
      |yarısı|yarım
  | nửa|rưỡi|setengah|نصف|ربع|ثلث|आधा|आधे
)"""
"""Parts of a whole."""

CHANGE: Final = rf"""
(?: \b(?: {FRACTION}
  | times|folds?|\w+fold|than|twice|thrice|double[ds]?|triple[ds]?|quadruple[ds]?|tripling|doubling
      |halve[ds]?
  | squares?\ of|squared|cubed|cubes?\ of|(?:square|cube)?\ ?roots?\ of|raised\ to|(?:to\ the\ )?powers?\ of
      |to\ the\ power
  | factorial|logarithm|log|ln|exp|sqrt|a?(?:sin|cos|tan)h?|sine|cosine|tangent|abs|absolute|floor|ceil
      |mod(?:ulo)?|lim
  | (?:opposite|inverse|reciprocal|complement|multiples?|factors?|divisors?|percent|prozent)\ of|negative
      |divides?|divisible
  | divided|multiplied|plus|minus|more\ or\ less|give\ or\ take|estimate
  | mal|mehr|weniger|hoch|zum\ quadrat|doppelt\w*|doppelte\w*|dreifach\w*|als
  | fois|moins|carré|veces|más|menos|cuadrado|doble|triple|vezes|mais|quadrado|dobro|volte|più|meno
      |quadrato|doppio
  | раз|раза|больше|меньше|более|менее|квадрат\w*|куб\w*|удвоен\w*|корень
  | keer|meer|minder|gånger|gange|razy|razem|więcej|mniej|krát|kat|katı|kere|kez|fazla|yüzde|lần|hơn|kali
      |lebih|kurang
  | أضعاف|ضعف|مرات|مرة|أكثر|أقل|مربع|جذر )\b
  | [гд]е?गुना | गुना | दोगुन | \s(?:से|के|का)(?:\s|$) | \sअधिक
)"""
"""What makes another amount of a number, or of what is said to be it."""

BEHIND: Final = r"""
(?: \b(?: almost|nearly|sometimes|usually|often|rarely|cases?|nan|null|todo|tb[da]|citation
  | out\ of|dozens?|less|fewer|lower|higher|extra|additional|short|shy|off|under
      |(?<!left\ )over(?!\ the\ (?:\w+\ )?(?:day|week|month|year)s?\b)|above|below|behind|ahead|beyond
  | beneath|upwards?|up|down|counting|change|something|some|others?|too|binary|hexadecimal|hex|octal|base
  | remainder|rem|residue|mille|bps|ppm|ppb|basis\ points?|debt|deficit|in\ the\ red
      |at\ (?:the\ )?(?:very\ )?(?:best|worst|least|most)
  | tops|max(?:imum)?|minimum|min\.|etc|else|guess|b\.?c\.?e?\.?|a\.?d\.?|the\ fourth|minus|und\ ein
  | before\ (?:\w+\ )?(?:tax|taxes|discount|shipping|tips?|fees)|taller|older|younger|heavier|longer
      |faster|larger|bigger
  | greater|shorter|smaller|cheaper|later|earlier|away\ from )\b
)"""
"""The same, only where it stands behind the number."""

FIRST_BEHIND: Final = rf"""
(?: {MONTH} | de\ {MONTH} | of\ {MONTH} | more\ (?:as|of|or)|and|or|tens?|scores?|gross|pairs?|couples?
      |odd|ish|point|comma|dozens?
  | hundreds?|thousands?|millions?|billions?|trillions?|log|ln|pi|et|und|y|e|plus|more\ and|other|rest
      |reste|x|roots?|powers?|grade|digits?|sided?|decimals?|significant
)"""
"""The same, only where it stands right behind the number."""

NUMBER_WORD: Final = r"""
(?: one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen
      |seventeen|eighteen
  | nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|zero|none|nil|first
      |last|other|next
)"""

SUPPOSED: Final = r"""
(?: \b(?:suppose[ds]?|supposing|assum\w+|(?:let|try|trying|test|say|take|consider)\ (?:[a-z]|\d+
      |[\ue000-\ue0c8])\b
      | imagine|guess\w*|might|maybe|perhaps|possibly|probably|likely|possible
      | (?:could|can)\ be|used\ to|depends?|may\ (?:be|well)
      |either|whether
      | e\.?g|for\ (?:example|instance)|such\ as|unknown|undefined|undetermined|unsure|uncertain|n/a|none
      |nothing
      | dne|no\ (?:solution|answer|idea)|error|unable|insufficient|not\ (?:enough|sure|certain)
      |(?:do\ not|don['’]t)\ know
      | give\ or\ take|more\ or\ less|as\ an\ (?:ai|artificial|assistant|language)|language\ model
      |approach(?:es)?|tends?\ to|converges?\ to
      | given\ (?:number|value)|(?:anything|all|everything)\ but|among
      | (?:question|problem|exercise|text|statement|prompt|user)\ (?:asks?|says?|states?|gives?|mentions?
      |tells?|wants?)
      | vielleicht|wahrscheinlich|möglicherweise|angenommen|peut-être|probablement|supposons|quizás?
      |tal\ vez
      | probablemente|talvez|provavelmente|forse|probabilmente|возможно|вероятно|может\ быть|пусть|ربما
      | misschien|być\ może|może|belki|có\ thể|có\ lẽ|mungkin|barangkali )\b
  | \bgiven\ that\b[^,]*$
  | 可能|也许|或许|大概是|假设|假設|たぶん|多分|おそらく|かもしれ|아마|शायद
)"""
"""What only supposes or tries a value, or says that there is none."""

REFUSAL: Final = r"""
(?: \b(?: as\ an?\ (?:ai|artificial|language\ model|assistant)
      | (?:i|we|one)\ (?:cannot|can\ ?not|can['’]t|could\ not|couldn['’]t|am\ unable|am\ not\ able
          |don['’]t\ know|do\ not\ know
          |do\ not\ have|don['’]t\ have)
      | i['’]m\ (?:unable|not\ (?:able|sure|certain)|sorry)
      | (?:it\ is|it['’]s)\ (?:impossible|not\ possible|unclear)
      | cannot\ be\ (?:determined|answered|solved|computed|calculated|known)
      | (?:not\ enough|insufficient|missing)\ (?:information|data|context|details?)
      | (?:need|provide|require)\ (?:\w+\ )?more\ (?:information|data|context|details?)
      | ich\ (?:kann|weiß|bin)\ (?:\w+\ )?nicht | je\ ne\ (?:peux|sais|suis) | no\ (?:puedo|sé|es\ posible)
      | não\ (?:posso|sei|é\ possível) | non\ (?:posso|so|è\ possibile) | не\ (?:могу|знаю) )\b
  | 无法|無法|不能确定|我不知道|信息不足|わかりません|分かりません|できません
  | 모르겠|알\ 수\ 없 | لا\ (?:أعرف|أستطيع|يمكن)
)"""
"""What refuses an answer, or says that there can be none."""
