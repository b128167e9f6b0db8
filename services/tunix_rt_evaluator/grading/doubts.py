# ruff: noqa: RUF001 (letters of other scripts are meant)
"""Words by which people doubt, ask or take back an answer, in the languages that models answer in most, as
parts of regular expressions (verbose, any case)."""

from __future__ import annotations

from typing import Final

_SURE: Final = r"(?:sure|certain|convinced|confident|positive|persuaded)"

DOUBT: Final = rf"""
(?: \b(?: doubt\w*|dubious|unlikely|improbable
      |unsure|uncertain\w*|unclear|undecided|unconvinced|skeptical|sceptical|hesita\w+
      | (?:not|\w+n['’]t|never|hardly|less\ than|far\ from)(?:\ \w+){{0,3}}\ {_SURE}
      | (?:not|\w+n['’]t|cannot)(?:\ \w+)?\ (?:think\ so|know|tell|say|remember|recall|decide|agree|believe)
      | (?:not|\w+n['’]t)\ (?:the|my|an?)\ (?:\w+\ )?(?:answer|choice|case)
      | (?:not|\w+n['’]t)\ (?:(?:really|quite|exactly|at\ all|so)\W*$|true\b|correct\b|right\b|it\W*$)
      | no\ (?:idea|clue|way|chance|wonder)|beats\ me|who\ knows|god\ knows|hard\ to\ (?:say|tell)
      | maybe|perhaps|possibly|conceivably|supposedly|allegedly|presumably|or\ so
      | (?:it|that|this|i|he|she|they|which|answer)\ (?:might|may|could)\b
      | (?:just|only|wild|random|educated|pure|best|a)\ guess|guess(?:ing|ed)
      | kidding|joking|joke|jk|lol|sarcas\w+|ironic\w*|prank|hah?a(?:ha)*
      | mistaken|misread|misunderst\w+|misspoke|confus(?:ed|ing)
      | (?:my|a|the|bad|made)\ mistake|my\ (?:bad|error|fault)|apolog\w+|sorry|oops|whoops|hmm+|erm|err
      |uh+|wrong\ again
      | never\ ?mind|forget\ (?:it|that|this|what)|disregard|ignore\ (?:that|this|my|it|the\ above)
      | take\ (?:it|that|this)\ back|retract\w*|withdraw\w*|revise\w*|reconsider\w*|rethink\w*|recheck\w*
      | (?:change|changed|changing)\ my\ (?:mind|answer)|on\ the\ other\ hand|then\ again|come\ to\ think
      | disagree\w*|nonsense|rubbish|bogus|bullshit|as\ if|yeah\ right|if\ (?:only|at\ all|anything)
      | a\ lie|lied|lying\ to|(?:not|\w+n['’]t)\ trust|grain\ of\ salt|(?:made|making)\ (?:it|this|that)\ up
      |april\ fools?
      | for\ now|tentative\w*|provisional\w*|(?!100\b)\d{{1,2}}\s?%\ {_SURE}|(?:low
      |little|no|much|some
      |\d+\s?%)\ (?:confidence|certainty)
      | or\ at\ least
      | opposite|contrary|reverse\ is|untrue|false|wrong|incorrect\w*|erroneous|invalid|nope
      | (?:said|told|claim(?:s|ed)?)\ (?:nobody|no\ one)|instead|rather|or\ (?:is|was|was\ it|is\ it
      |maybe|not)
      )\b
  | \b(?: zweif\w+|bezweif\w+|unsicher\w*|ungewiss|unklar|nicht(?:\ \w+){{0,2}}\ (?:sicher|überzeugt)
      | vielleicht|möglicherweise|eventuell|womöglich|wahrscheinlich\ nicht|schwer\ zu\ sagen|geraten
      |rate\ nur
      | falsch\w*|irr(?:e|tum|tümlich)\b|geirrt|vertan|quatsch|unsinn|scherz\w*|spaß|witz|verzeihung
      |entschuldigung
      | doch\ nicht|eher|moment|halt|stimmt(?:\ \w+)?\ nicht|keine\ ahnung|weiß\ (?:es\ |ich\ )?nicht
      | (?:glaube|denke|meine)\ (?:ich\ |es\ )?(?:eher\ )?nicht|korrektur|besser\ gesagt|vielmehr
      |im\ gegenteil|ach\ nein
      )\b
  | \b(?: dout\w+|peut-être|incertain\w*|pas\ (?:\w+\ )?(?:sûre?|certaine?|convaincue?)|éventuellement
      | erreur|trompé\w*|faux|fausse|inexact\w*|plaisant\w*|blague|rigole|non\ plus|en\ fait|plutôt
      |au\ contraire
      | aucune\ idée|n?e?\ ?(?:sais|crois|pense)\ pas|sauf\ erreur|pardon|désolée?|au\ hasard|ou\ pas
      |oublie[rz]?
      )\b
  | \b(?: dud[aoé]\w*|quizás?|tal\ vez|a\ lo\ mejor|posiblemente|acaso|no\ (?:estoy\ )?(?:\w+\ )?segur[oa]
      | equivoc\w*|error|mentira|broma|bromeo|en\ realidad|más\ bien|mejor\ dicho|ni\ idea|al\ azar
      |perdón|perdona
      | no\ (?:lo\ )?(?:sé|creo|recuerdo)|o\ no|olvid\w+|al\ contrario|falso|incorrect[oa]
      )\b
  | \b(?: dubbi\w*|forse|magari|può\ darsi|non\ (?:sono\ |ne\ sono\ )?(?:\w+\ )?(?:sicur|cert)[oa]
      |sbagli\w*|scherz\w*|anzi|piuttosto
      | non\ (?:lo\ )?(?:so|credo)|duvid\w+|dúvid\w+|talvez|não\ (?:tenho\ certeza|sei|acho|creio)
      |engan\w+|errad\w+|brincadeira
      | aliás|na\ verdade|twijfel\w*|misschien|tvivl\w*|måske|kanske
      | сомнева\w*|сомнен\w*|возможно|может\ быть|наверное?|не\ (?:уверен\w*|думаю|знаю)|ошиб\w*|шучу
      |шутк\w*|впрочем|точнее
      )\b
  | 怀疑|懷疑|不确定|不確定|不肯定|不太|不敢|也许|也許|或许|或許|大概|恐怕|未必|错|錯|不对|不對|不是
      |开玩笑|開玩笑|其实|其實
  | 不过|不過|等等|等一下|更正|应该不|應該不|难说|難說|不知道|不清楚|不懂|猜|搞混|收回|抱歉|反而|疑问|疑問
  | (?:可能|吗|嗎|吧|呢)(?=[^\u3400-\u9fff]*$)
  | 疑|かもしれ|かな|たぶん|多分|おそらく|間違|やっぱり|わから|分から|自信が|違う|違い|でしょうか
  | 의심|아마|모르|확실하지|확실치|틀렸|잘못|아니
)"""
"""What says of an answer that it may be another one, that it is a joke, or that it is taken back."""

HEARSAY: Final = r"""
(?: \b(?: (?:say|says|said|claim\w*|told|heard|suppose[ds]?|argue[ds]?|alleg\w+|insist\w*|wrote|writes
      |pretend\w*|assum\w+|assert\w*
        |wish\w*|hop(?:e|ed|es|ing)|ask(?:s|ed|ing)?|wonder\w*|imagin\w+|suggest\w*|propos\w+|quot\w+)
      | according\ to\ (?!the\ (?:text|passage|table|question|figure|graph|data|definition|rule|formula)\b)
      | (?:people|some|many|most|others|everyone|everybody|someone|somebody|one|you|they|he|she|students?
      |friend|teacher|book)
        \ (?:\w+\ )?(?:think|thinks|thought|believe[sd]?|choose|chose|pick(?:ed|s)?|would|might|may|could
        |can)
      | thought|believed|used\ to|once|at\ first|initially|originally|previously|tempt\w+|seem\w*
      |appear\w*|looks?\ like
      | nobody|no\ one|niemand|personne|nadie|thinks|believes
      | (?:one|people|you)\ (?:could|might|can)|(?:man|on|uno)\ (?:könnte|kann|pourrait|peut|podría|puede)
      | könnte|dürfte|pourrait|podría|potrebbe|poderia
      | behaupte\w*|sag(?:t|te|en|ten)|meint\w*|angeblich|laut|zunächst|zuerst|hieß|scheint|scheinbar
      | dit|disent|disait|prétend\w*|selon|d['’]après|semble\w*|paraît|croyais|pensais
      | dice[ns]?|decía\w*|dijo|según|pretend\w*|parece\w*|creía|pensaba|dizem?|disse|segundo|parece
      |dicono|secondo|sembra
      )\b
  | 有人|据说|據說|听说|聽說|他们|他們|他说|她说|大家|看起来|似乎|好像|原以为|以为|本来 | と言|そう(?:だ
      |です)\b|らしい
)"""
"""What says that a statement is somebody else's, or was once believed."""

CERTAIN: Final = r"""
(?: \b(?: without\ (?:a\ |any\ )?(?:doubt|question) | no\ doubt(?:\ about\ it)? | beyond\ (?:a\
      |any\ )?doubt
      | ohne\ (?:jeden\ )?zweifel | zweifellos | zweifelsohne | sans\ (?:aucun\ )?doute
      | sin\ (?:ninguna\ |lugar\ a\ )?dudas? | senza\ dubbio | sem\ dúvida )\b
  | 毫无疑问 | 无疑 | 間違いなく | 의심할\ 여지\ 없이
)"""
"""What says that there is no doubt."""

MORE: Final = r"""
(?: \b(?: forgot\w*|left\ out|omitted|one\ more|another\ one|vergessen|oublié|olvidé|etc|usw
      | and\ so\ (?:on|forth)
      | among\ others|random\w*|arbitrar\w*|zufällig|au\ hasard|al\ azar|confidence|likelihood )\b
)"""
"""What says of an answer that more belongs to it, or that it was drawn by lot."""

WEAK: Final = r"""
(?: \b(?: maybe|perhaps|possibly|conceivably|supposedly|allegedly|presumably|instead|rather|opposite
      |contrary|untrue|false|wrong
      | incorrect\w*|erroneous|invalid|(?:it|that|this|they|which|he|she)\ (?:might|may|could)
      | vielleicht|möglicherweise|eventuell|womöglich|falsch\w*|irrtümlich|unsinn|eher|halt|vielmehr|moment
      | peut-être|éventuellement|erreur|faux|fausse|inexact\w*|plutôt|au\ contraire
      | quizás?|tal\ vez|posiblemente|error|más\ bien|al\ contrario|falso|incorrect[oa]
      | forse|anzi|piuttosto|talvez|errad\w+|возможно|может\ быть )\b
  | 错 | 錯 | 不是 | 其实 | 其實 | 不过 | 不過 | 反而 | 也许 | 或许 | 大概 | 猜 | 違う | 違い | 間違
      | 疑 | 아니
)"""
"""Of these, what also describes matters: it doubts an answer only where it speaks of it."""

FAREWELL: Final = r"""
(?: (?:that['’]?s|this\ is|it\ is|it['’]s)\ (?:it|all|that|my\ (?:final\ )?answer)|done|bye|goodbye
      |thanks?|thank\ you|ok(?:ay)?|cheers|end|fertig|danke
  | q\.?e\.?d | fin|merci|gracias|listo|fim|obrigad[oa]|grazie|完|谢谢|完毕|以上(?:です)?
  | (?:i\ )?hope\ (?:this|that|it)\ helps?(?:\ you)?|good\ luck|see\ above|well\ done|great|correct|yes
      |sure
  | explanation|reasoning|rationale|reason|justification|analysis|solution|note|why|steps?|details?|summary
  | erklärung|begründung|explication|justification|raison|explicación|justificación|razón|spiegazione
  | 解释|解析|分析|理由|说明|解説|説明|설명|해설 )
"""
"""Short sentences that end a text and say nothing of its answer."""

HELP: Final = r"""
(?: (?:would|do|did|can|could|shall|may|should|are|is|any|need|want|have)\b.*\b(?:you|i|there|help
      |questions?|else|more)\b.*
    \b(?:help|explain\w*|question\w*|details?|anything\ else|more|further|elaborate|assist|walk|see)\b
  | (?:any|more|other)\ (?:other\ )?questions | (?:kann|möchte|soll|haben)\b.*\b(?:helfen|fragen
      |erkläre\w*)\b
  | (?:puis|voulez|avez|souhaite)\S*\b.*\b(?:aider|questions?|explique\w*)\b
  | ¿?(?:puedo|quiere|tiene|necesit)\S*\b.*\b(?:ayuda\w*|preguntas?|expli\w*)\b | 还有.*问题
)"""
"""Questions to the reader that offer more help, and ask nothing of the answer."""
