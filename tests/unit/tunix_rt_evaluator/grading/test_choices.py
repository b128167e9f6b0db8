# ruff: noqa: RUF001 (letters of other scripts are meant)
"""Which option a text gives: how people say what they choose, and how they do not."""

from __future__ import annotations

import pytest

from tunix_rt_evaluator.grading import Grading
from tunix_rt_evaluator.model import EvalItem

GRADING = Grading()
CITIES = ("Paris", "London", "New York", "Rome")

# The option that each output gives, "-" for none; then the output.
TABLE = r"""
B|The answer is B because a car moves.
C|Answer: I think it is C
B|<answer>B</answer>
B|Choice B is right.
D|Answer: It is not B, the answer is D
C|Antwort: C
C|答案：C
-|B? I doubt it.
C|B seems right, but actually C is
C|Nicht B, sondern C
B|<b>B</b>
B|Answer: B
B|**B**
B|(b)
B|b
B|B)
B|B.
B|B) London
B|Answer: **B) London**
B|The correct answer is **B**.
B|The correct answer is (B) London.
B|Answer: \text{B}
B|\boxed{\text{B}}
B|\boxed{\textbf{(B)}}
B|$\boxed{B}$.
B|The answer is $B$.
B|I would choose option B.
B|I'd go with B.
B|I'll go with B
B|My answer is B
B|So the answer is B.
B|Therefore, the correct option is B.
B|Option B is the correct answer.
B|B is the correct answer.
B|It must be B.
B|It is B, since London lies on the Thames.
B|Most likely B.
B|Probably B
B|I think B is correct.
B|I believe that the answer is B
B|I am confident that the answer is B.
B|Without a doubt, B.
B|Without a doubt B
B|There is no doubt: the answer is B
B|The best choice is B
B|Answer: B\n\nExplanation: London lies on the Thames.
B|Answer: B\n\nExplanation:\nA. Incorrect, as it lies on the Seine.\nB. Correct.\nC. Incorrect.\nD. Wrong.
B|Answer: B. Paris is wrong because it lies on the Seine.
B|B\n\nA is wrong, C and D too are wrong.
B|The answer is B. Hope this helps!
B|The answer is B. Would you like me to explain further?
B|Answer: B\n\nQuestion: What is C?
B|Die richtige Antwort ist B.
B|Die Antwort lautet B
B|Ich denke, die Antwort ist B.
B|Ich denke, dass B richtig ist.
B|Antwort B ist richtig.
B|Ich wähle B
B|Es ist B, weil London an der Themse liegt.
B|La bonne réponse est B.
B|La réponse est la B
B|C'est B
B|Je choisis B.
B|Je pense que c'est B.
B|La réponse B est correcte.
B|La respuesta correcta es B.
B|La respuesta es la B
B|Es la B
B|Creo que es B
B|Elijo la opción B.
B|La opción B es la correcta.
B|正确答案是B。
B|答案是B
B|选B
B|应选B
B|我选择B。
B|选项B是正确的
B|所以选B
B|答案为B，因为伦敦在泰晤士河上。
B|La risposta è B
B|A resposta correta é B
B|Правильный ответ: B
B|Ответ — B
B|答えはBです
B|정답은 B입니다
B|Not A, but B
B|Not A but B.
B|It's not A. It's B.
B|No es A, sino B
B|Ce n'est pas A mais B
B|不是A，而是B
B|Wait, B.
B|Answer: A. Wait, actually B.
B|Answer: A. No, B.
B|The answer is A. Hmm, actually it is B.
B|A is wrong, so B
B|A, C and D are wrong, so it is B.
B|A, C and D are wrong. So B.
B|I would rule out A, C, and D, leaving B.
B|First I thought A. But the answer is B.
B|It's either A or B, but the answer is B.
B|Answer: B (London)
B|Answer: B - London
B|Answer: (B)
B|Answer: [B]
B|Answer: {B}
B|Answer: "B"
B|Answer: `B`
B|Answer: option b
B|The answer is b.
B|the answer is b
B|Answer: London
B|London
B|It is London.
B|The answer is London.
B|Answer: London, because it lies on the Thames
B|Answer: B, not A
B|Answer: B and not A
B|Answer: B rather than A
B|Answer: Ｂ
B|✅ B
B|Answer: B ✅
B|Final answer: B
B|**Final Answer:** (B)
B|#### B
B|The answer is:\n\nB
B|The answer is:\n\n**B) London**
B|Answer:\nB
B|Answer: B\n\nLet me know if you have any questions.
-|B or C
-|B and C
-|either B or C
-|Both B and C
-|B, C
-|B/C
-|B & C
-|Answer: B or C
-|Answer: B, maybe C
-|Answer: B (or C)
-|Neither B nor C
-|B\nC
-|B\nB\nC
-|Answer: B\nC
-|Is it B?
-|B?
-|Could it be B?
-|Is the answer B
-|Should I choose B
-|Why B?
-|Maybe B
-|Perhaps B.
-|Possibly B
-|It might be B.
-|It could be B
-|B, I guess, but I am not sure
-|I'm not sure, but B
-|I am not sure. B.
-|B. I'm not sure though.
-|B. Not sure.
-|B (just kidding)
-|B. Just kidding!
-|B, right?
-|B. Or is it?
-|B. Or is it C?
-|I doubt that it is B
-|I doubt B
-|It's hard to say, B
-|My friend said B
-|My friend said the answer is B
-|Someone said "the answer is B"
-|"The answer is B," my friend said.
-|"The answer is B" is what I was told.
-|"B" is what most people say.
-|According to my friend, B
-|They say the answer is B.
-|Most people choose B
-|You might think the answer is B
-|One might say B
-|I don't think the answer is B
-|I don't think that the answer is B.
-|It is not true that the answer is B.
-|It is unlikely that the answer is B
-|I doubt that the answer is B.
-|If it rains, the answer is B
-|If it rains, B
-|B if it rains
-|B unless it rains
-|Assuming it rains, the answer is B
-|The wrong answer is B
-|Wrong answer: B
-|Incorrect Answer: B
-|B is wrong
-|B is not right
-|B isn't the answer
-|Not B
-|not (B)
-|Anything but B
-|All but B
-|Everything except B
-|The opposite of B
-|B is a distractor
-|B is the worst
-|B is incorrect.
-|~~B~~
-|❌ B
-|B ❌
-|Answer: B. Wait, no.
-|Answer: B. No.
-|Answer: B. Actually, no.
-|Answer: B\nThat is wrong.
-|Answer: B. That's not right.
-|Answer: B. But C is right.
-|Answer: B. However, C is also correct.
-|Answer: B. C is better.
-|Answer: B. I changed my mind.
-|Answer: B. Forget that.
-|Answer: B. Ignore it.
-|\boxed{B} is wrong
-|It is not \boxed{B}
-|\boxed{B}. No wait.
-|\boxed{B} or \boxed{C}
-|\boxed{B, C}
-|\boxed{\text{B and C}}
-|<answer>B or C</answer>
-|<answer>B</answer> I doubt it.
-|<answer>not B</answer>
-|Vielleicht B
-|Ich bin nicht sicher, aber B
-|B oder C
-|Weder B noch C
-|Nicht B
-|B ist falsch
-|Ich glaube nicht, dass es B ist
-|Ist es B?
-|B? Eher nicht.
-|Peut-être B
-|B ou C
-|Ni B ni C
-|Ce n'est pas B
-|Je ne pense pas que ce soit B
-|Est-ce B ?
-|B est fausse
-|Quizás B
-|Tal vez B
-|B o C
-|No es B
-|Ni B ni C
-|¿Es B?
-|¿B?
-|B es incorrecta
-|No creo que sea B
-|也许是B
-|可能是B
-|不是B
-|B或C
-|B和C
-|是B吗？
-|我不确定，B
-|B？我怀疑。
-|B是错误的
-|有人说是B
-|A) Paris\nB) London\nC) New York\nD) Rome
-|I was going to say B
-|I would have said B
-|I used to think it was B
-|I wish it were B
-|Let's pretend it's B
-|B is tempting.
-|B looks right.
-|B seems right
-|B appears to be correct
-|B would be right if Paris were in England
-|B London or C New York
-|B. New York
-|B (Rome)
-|Answer: B) Rome
-|Vitamin B
-|Plan B
-|Hepatitis B
-|B+
-|B-
-|B'
-|-B
-|¬B
-|!B
-|B!= A
-|B = C
-|B > C
-|E
-|A city in England
-|I do not know
-|
C|Answer: B. No, it is C.
C|Not B. C.
C|B? No, C.
C|B is wrong; C is right.
C|B ist falsch, C ist richtig.
C|B is not correct; the answer is C.
C|I first thought B, but the answer is C.
C|The answer is not B but C
C|Instead of B, choose C
C|Rather than B, I choose C
C|While B is tempting, the answer is C.
C|Although B looks right, C is the correct answer.
C|B looks right but the answer is C
"""
ROWS = [
    (letter, output.replace("\\n", "\n"))
    for letter, _, output in (line.partition("|") for line in TABLE.strip().splitlines())
]


def given(output: str, options: tuple[str, ...] = CITIES) -> str:
    """The letters of the options for which an output is right."""
    letters = "ABCDEFGHIJ"[: len(options)]
    return "".join(letter for letter in letters if _is_right(letter, output, options))


def _is_right(letter: str, output: str, options: tuple[str, ...]) -> bool:
    grader = {"kind": "multiple_choice", "options": options}
    item = EvalItem(id="q", prompt="?", accepted_answers=(letter,), grader=grader)
    return GRADING.grade(item, output).correct


@pytest.mark.parametrize(("letter", "output"), ROWS)
def test_an_output_gives_one_option_or_none(letter: str, output: str) -> None:
    assert given(output) == letter.strip("-")
