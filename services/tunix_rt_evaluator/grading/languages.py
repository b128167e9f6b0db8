# ruff: noqa: RUF001 (letters of other scripts are meant)
"""Words of the languages that models answer in most, as parts of regular expressions (verbose, small
letters)."""

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
