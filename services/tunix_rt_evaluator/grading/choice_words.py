"""The words by which people say which option they choose, in the languages that models answer in most.

The list is closed: a clause with any other word in it gives no choice. So no word belongs to it that
denies, that makes a choice weaker than "probably" (might, perhaps, seems), that joins two options (and,
or), that is past (was) or that speaks of somebody else (you, they).
"""

from __future__ import annotations

from typing import Final

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
(?: 正确|正確|最佳|最终|最終|最|最有?可能|很可能|很有可能|答案|选项|選項|选择|選擇|应该?|應該?|选|選
  |是|为|為|就|的
      |所以|因此|故|综上|我们?|我們
  |认为|認為|觉得|覺得|会|會|即|項|项|這|这|道|题|題|本|那么|那麼|于是|可以|得出|得到|显然|顯然|肯定|一定
      |对|對|而|确定|能
  |答え|解答|正解|回答|選択肢|選択|選び|記号|正しい|正しく|したがって|よって|なので|ゆえに|つまり|結論
      |もっとも|最も|適切|思い|思う
  |考え|です|だ|である|ます|しま|は|が|を|と|の|な|番|私
  |정답|답|선택지|선택|저는|제|생각|따라서|그러므로|옳습니다|맞습니다|합니다|입니다|이다|예요|이에요|은
      |는|이|가|을|를|번|것
)"""
"""Words of scripts that do not, as a part of a regular expression."""

CONTRAST: Final = (
    r"(?: \b(?:but|sondern|sino|mais|mas|ma|bensì|rather|instead|plutôt|doch)\b | 而是 | 但是?| 但 )"
)
"""What sets an option against one that was denied before."""

QUESTION: Final = r"""
(?: ^[\s"'(*]*(?:is|are|should|would|must|will|can|could|shall|do|does|did|has|have)
    \s+(?:it|the|this|that|i|we)\b
  | ^[\s"'(*]*(?:ist|wäre|muss|sollte)\s+(?:es|das|die|der)\b | \best-ce\b | \b(?:would|should|'d)\s+have\b
      | \bhave\s+to\s+say\b )
"""
"""What makes a question of such words, or a thing that was not done."""
