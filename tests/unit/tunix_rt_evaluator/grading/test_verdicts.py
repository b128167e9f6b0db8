"""What counts as the same answer, a row a case: (accepted, the model's whole output, right or wrong)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.grading.model import Verdict
from tunix_rt_evaluator.grading.service import Grading

R, W = True, False
GRADING = Grading()

EXACT = [
    # How the answer is marked
    ("18", "Reasoning:\n1. 16 - 3 - 4 = 9\n2. 9 * 2 = 18\nAnswer: 18", R),
    ("18", "Answer: 19", W),
    ("18", "18", R),
    ("18", "The answer is 18.", R),
    ("18", "the final answer is: 18", R),
    ("18", "Final Answer: 18", R),
    ("18", "FINAL ANSWER: 18", R),
    ("18", "ANSWER: 18", R),
    ("18", "answer: 18", R),
    ("18", "**Answer**: 18", R),
    ("18", "**Answer:** $18", R),
    ("18", "**Final Answer:** 18", R),
    ("18", "Answer: **18**", R),
    ("18", "Answer:\n18", R),
    ("18", "The answer: 18", R),
    ("18", "16 - 7 = 9, and twice that is 18\n#### 18", R),
    ("18", "#### 18 eggs for 3 people", R),
    ("18", "#### Step 1\nAdd 9.\nAnswer: 18", R),
    ("18", r"Answer: \boxed{18}", R),
    ("18", r"So we get $\boxed{18}$. It took 3 steps.", R),
    ("18", r"So we get $\fbox{18}$.", R),
    ("18", r"First \boxed{9}, then \boxed{18}", R),
    ("18", r"The answer is $\boxed{18}$. I hope that helps 100%.", R),
    ("18", r"Answer: 18, from \boxed{", W),
    ("18", r"It is \boxed{18}. No, wait: \boxed{20", W),
    ("18", r"\boxed{18}, so \boxed{\frac{36}{2}", W),
    ("18", r"\boxed{18}" + "\nAnswer:", W),
    ("18", r"Answer: 18" + "\n" + r"So it is \boxed{20}", W),
    ("18", r"\boxed{20}" + "\nAnswer: 18", R),
    ("18", r"\boxed{17} or \boxed{18}", W),
    ("18", r"$\boxed{18}$, $\boxed{18}$", R),
    ("18", "<answer>18</answer> That is 3 less than 21.", R),
    ("18", "<answer> 18", R),
    ("18", "<ANSWER>20</ANSWER>", W),
    ("18", "Antwort: 18", R),
    ("18", "R\u00e9ponse : 18", R),
    ("18", "9 + 9\uff0c\u7b54\u6848\uff1a18", R),
    ("18", "Answer: $18$", R),
    ("18", "Therefore, 18 is the answer.", R),
    ("18", "First 9,\nthen 18", R),
    ("18", "Answer: 9\nNo, wait.\nAnswer: 18", R),
    ("18", "Answer: 18\n\nQuestion: What is 3 + 4?", R),
    ("18", "Answer: 18\nThe answer is easy: 3 steps.", R),
    ("18", "The answer is 18. Let me check: 9 * 2 is 18, for 4 hens.", R),
    ("18", "Answer: nothing yet\n18", R),
    ("7", "1. She has 21 cats.\n7. She needs", W),
    ("21", "1. She has 21 cats.\n7. She needs", R),
    ("18", "1) 9\n2) 18", R),
    ("18", "Answer:", W),
    ("18", "", W),
    ("18", "   \n", W),
    ("18", "eighteen", W),
    # Several numbers
    ("18", "Answer: 9 * 2 = 18", R),
    ("18", "Answer: 9 + 9 \u2248 18", R),
    ("18", "Answer: 18 eggs at $2 each", R),
    ("18", "Answer: 18 (that is 9 times 2)", R),
    ("18", "Answer: (18)", R),
    ("18", "Answer: In 5 days, 18", R),
    ("18", "Answer: In 2019 she sold 18", R),
    ("18", "18 is what I get, or 20", W),
    ("18", "Answer: 18 or 20", W),
    ("18", "Answer: 20 or 18", W),
    ("18", "Answer: about 17 or 18", W),
    ("18", "Answer: 17, 18", W),
    ("18", "Answer: 17 to 18", W),
    ("18", "Answer: 18 to 20 eggs", W),
    ("18", "Answer: 18 or 18.0", R),
    ("3", "Answer: 3 hours and 20 minutes", W),
    ("5", "Answer: 10-5", W),  # a range, or a subtraction that was not done
    ("-5", "Answer: 10-5", W),
    ("18", "Answer: 1 8", W),
    # Trailing words and units
    ("18", "Answer: 18 eggs", R),
    ("18", "Answer: 18kg", R),
    ("18", "Answer: 18 m^2", R),
    ("18", "Answer: 18 cm2", R),
    ("18", "Answer: 18 m\u00b2", R),
    ("18", r"Answer: 18\text{ cm}", R),
    ("18", r"Answer: $18\,\mathrm{kg}$", R),
    ("18", "Answer: 18.", R),
    ("18", "Answer: 18!", W),  # a factorial, for all that can be seen
    ("18", "Answer: 18 eggs!", R),
    ("18", "Answer: 180", W),
    ("7", "Answer: the 7th", R),
    ("2", "Answer: H2O", W),
    ("90", "Answer: 90\u00b0", R),
    # Signs
    ("18", "Answer: -18", W),
    ("-18", "Answer: -18", R),
    ("-18", "Answer: \u221218", R),
    ("-18", "Answer: \u201318", R),
    ("-18", "Answer: negative 18", R),
    ("-18", "Answer: minus 18", R),
    ("-18", "Answer: 18", W),
    ("18", "Answer: +18", R),
    ("-5", "Answer: x = -5", R),
    ("-5", "Answer: -$5", R),
    ("-5", "Answer: $-5", R),
    ("2", "Answer: 7 minus 5 is 2", R),
    # Currency
    ("18", "Answer: $18", R),
    ("18", r"Answer: \$18", R),
    ("18", "Answer: 18 dollars", R),
    ("18", "Answer: \u00a318.00", R),
    ("18", "Answer: \u20b918", R),
    ("18.5", "Answer: $18.50 per hour", R),
    ("1250.5", "Answer: \u20ac1,250.50 a month", R),
    # Thousands
    ("1234", "Answer: 1,234", R),
    ("1,234", "Answer: 1234", R),
    ("1234", "Answer: 1,234, exactly", R),
    ("1234567.5", "Answer: $1,234,567.50", R),
    ("1234567", "Answer: 1 234 567", R),
    ("10000", "Answer: 10 000 people", R),
    ("10000", "Answer: 10\u202f000", R),
    ("10000", "Answer: 10\u00a0000", R),
    ("1234567", "Answer: 1'234'567", R),
    ("1234567", "Answer: 1\u2019234\u2019567", R),
    ("1234567", "Answer: 1_234_567", R),
    ("1234567", "Answer: 1.234.567", R),
    ("1234.56", "Answer: 1.234,56", R),
    ("1234567.89", "Answer: 1.234.567,89", R),
    ("100000", "Answer: 1,00,000", R),
    ("1234567", "Answer: 12,34,567", R),
    ("1234", r"Answer: $1{,}234$", R),
    ("1234", r"Answer: $1\,234$", R),
    ("1.234", "Answer: 1.234", R),
    ("1234", "Answer: 1.234", W),
    ("12", "Answer: 1,2", W),
    # Decimals
    ("18", "Answer: 18.0", R),
    ("18", "Answer: 18.000", R),
    ("18", "Answer: 18.01", W),
    ("0.5", "Answer: 0.5", R),
    ("0.5", "Answer: .5", R),
    ("0.5", "Answer: 0.50", R),
    ("0.30", "Answer: 0.3", R),
    ("0.333", "Answer: 1/3", W),
    # Fractions and mixed numbers
    ("0.5", "Answer: 1/2", R),
    ("0.5", "Answer: 1 / 2", R),
    ("0.5", "Answer: \u00bd", R),
    ("0.5", r"Answer: \frac{1}{2}", R),
    ("0.5", r"Answer: $\dfrac{1}{2}$", R),
    ("0.5", r"Answer: $\frac12$", R),
    ("-0.5", r"Answer: $-\frac{1}{2}$", R),
    ("1/2", "Answer: 2/4", R),
    ("1/3", "Answer: 0.3333", W),
    ("2.5", "Answer: 2 1/2", R),
    ("2 1/2", "Answer: 5/2", R),
    ("2.5", "Answer: 2\u00bd", R),
    ("2.5", r"Answer: $2\frac{1}{2}$", R),
    ("-2.5", "Answer: -2 1/2", R),
    ("2.5", "Answer: 5/2 hours", R),
    ("500", "Answer: 1,000/2", R),
    ("0", "Answer: 0/7", R),
    ("3", "Answer: 3/0", W),
    # Percent
    ("0.5", "Answer: 50%", R),
    ("0.5", "Answer: 0.5 or 50%", R),
    ("0.5", "Answer: 0.5 (50%)", R),
    ("0.5", "Answer: 0.5 or 60%", W),
    ("0.5", "Answer: 50 percent", R),
    ("0.5", "Answer: 50 per cent", R),
    ("0.5", r"Answer: 50\%", R),
    ("0.5", "Answer: 0.5%", W),  # a share more often than a percentage
    ("60", "Answer: 60%", R),
    ("60%", "Answer: 60", R),
    ("60%", "Answer: 0.6", R),
    ("60%", "Answer: 0.6%", W),
    ("60%", "Answer: 60 %", R),
    ("12.5%", "Answer: 1/8", R),
    ("6", "Answer: 60%", W),
    # Powers of ten, and words for them
    ("1500", "Answer: 1.5 x 10^3", R),
    ("1500", r"Answer: $1.5 \times 10^{3}$", R),
    ("1500", r"Answer: $1.5 \cdot 10^3$", R),
    ("1500", "Answer: 1.5 \u00d7 10\u00b3", R),
    ("1500", "Answer: 1.5e3", R),
    ("1500", "Answer: 1.5E+03", R),
    ("1500", "Answer: 1.5*10**3", R),
    ("0.015", "Answer: 1.5 \u00d7 10^{-2}", R),
    ("0.015", "Answer: 1.5\u00d710\u207b\u00b2", R),
    ("1000", "Answer: 10^3", R),
    ("1.5e3", "Answer: 1500", R),
    ("1500000", "Answer: 1.5 million", R),
    ("$1.5 million", "Answer: 1,500,000", R),
    ("1.5 million", "Answer: 1,500 thousand", R),
    ("5 million", "Answer: 5 thousand", W),
    # Nonsense
    ("9", "Answer: " + "9" * 5000, W),
]

# (settings, accepted, output, right or wrong)
TOLERANT = [
    ({"tolerance": 0.001}, "1/3", "Answer: 0.3333", R),
    ({"tolerance": 0.001}, "1/3", "Answer: 0.335", W),
    ({"tolerance": 0.05}, "153.9", "Answer: 153.94 square centimetres", R),
    ({"tolerance": 0.05}, "153.9", "Answer: 153.95", R),  # exactly on the edge
    ({"tolerance": 0.05}, "153.9", "Answer: 153.96", W),
    ({"tolerance": 0.3}, "0.1", "Answer: 0.4", R),
    ({"tolerance": 0.01}, "0.5", "Answer: 50.4%", R),
    ({"relative_tolerance": 0.01}, "1000", "Answer: 1010", R),
    ({"relative_tolerance": 0.01}, "1000", "Answer: 1010.1", W),
    ({"relative_tolerance": 0.01}, "-1000", "Answer: -990", R),
    ({"relative_tolerance": 0.01}, "0", "Answer: 0.001", W),
    ({"relative_tolerance": 0.01, "tolerance": 0.5}, "10", "Answer: 10.5", R),
    ({"units": ["kg", "kilograms"]}, "5", "Answer: 5 kg", R),
    ({"units": ["kg", "kilograms"]}, "5", "Answer: 5kg", R),
    ({"units": ["kg", "kilograms"]}, "5", "Answer: 5 Kilograms of rice", R),
    ({"units": ["kg", "kilograms"]}, "5", "Answer: 5", R),
    ({"units": ["kg", "kilograms"]}, "5", "Answer: 5 in total", R),
    ({"units": ["kg", "kilograms"]}, "5", "Answer: 5 g", W),
    ({"units": ["kg", "kilograms"]}, "5", "Answer: 5 pounds", W),
    ({"units": ["kg"]}, "5", "Answer: 6 kg", W),
    ({"units": ["kg"], "unit_required": True}, "5", "Answer: 5", W),
    ({"units": ["kg"], "unit_required": True}, "5", "Answer: 5 kg", R),
    ({"units": ["kg"], "unit_required": True}, "5", r"Answer: $5\text{ kg}$", R),
    ({"units": ["kg"], "unit_required": True}, "5", "Answer: 5 kgs", W),
    ({"units": ["m"]}, "5", "Answer: 5 m", R),
    ({"units": ["m"]}, "5", "Answer: 5 m/s", W),
    ({"units": ["m"]}, "5", "Answer: 5 m^2", W),
    ({"units": ["m"]}, "5", "Answer: 5 m\u00b2", W),
    ({"units": ["m\u00b2", "square metres"]}, "5", "Answer: 5 m^2", R),
    ({"units": ["m\u00b2", "square metres"]}, "5", "Answer: 5 square metres", R),
    ({"units": ["mW"]}, "5", "Answer: 5 MW", W),
    ({"units": ["$", "dollars"], "unit_required": True}, "5", "Answer: $5", R),
    ({"units": ["$", "dollars"], "unit_required": True}, "5", "Answer: 5 dollars", R),
    ({"units": ["$", "dollars"]}, "5", "Answer: \u20ac5", W),
    ({"units": ["%"], "unit_required": True}, "50", "Answer: 50%", R),
    ({"units": ["%"], "unit_required": True}, "50", "Answer: 50", W),
    ({"units": ["kg"]}, "50", "Answer: 50%", W),
]

TEXT = [
    ("Paris", "Answer: Paris?", W),
    ("Paris", "Answer: Paris\nLondon", W),
    ("Paris", "Answer: Paris\nOr London, I am not sure.", W),
    ("Paris", "Answer: Paris\nIt lies on the Seine. Actually, it is London.", W),
    ("Paris", "The answer is Paris. I doubt it.", W),
    ("Paris", "The answer is Paris, not London.", W),
    ("Paris", "I don't think the answer is Paris.", W),
    ("Paris", "If it rains the answer is Paris.", W),
    ("Paris", "Some say the answer is Paris.", W),
    ("Paris", "Wrong answer: Paris", W),
    ("Paris", "My friend's answer: Paris", W),
    ("Paris", r"\boxed{Paris} is wrong", W),
    ("Paris", "<answer>Paris</answer> Just kidding.", W),
    ("Paris", "Answer: Paris\n\nExplanation: It is the seat of the government.", R),
    ("Paris", "Answer: Paris\n\nWould you like me to explain more?", R),
    ("Paris", "Answer: Paris\nFalse friends of the word are listed in the table below.", R),
    ("Paris", "Answer: Paris\nWait, that's wrong. It is London.", W),
    ("Paris", "The answer is Paris. Actually, it is London.", W),
    ("Paris", "Answer: Paris\nIt lies on the Seine.", R),
    ("Paris", "Answer: Paris", R),
    ("Paris", "Answer: paris.", R),
    ("Paris", "Answer: **Paris**", R),
    ("Paris", "**Answer:** Paris", R),
    ("Paris", 'Answer: "Paris"!', R),
    ("Paris", "Paris", R),
    ("Paris", "Answer: Paris\nThat was easy.", R),
    ("Paris", "Reasoning:\n1. France\nAnswer:   Paris  ", R),
    ("Paris", "The answer is Paris.", R),
    ("Paris", "The answer is Paris. It lies on the Seine.", R),
    ("Paris", r"\boxed{\text{Paris}}", R),
    ("Paris", r"\boxed{Paris}", R),
    ("Paris", "The capital is Paris.", W),
    ("Paris", "Answer: Paris, Texas", W),
    ("Paris", "Answer: Pari", W),
    ("Paris", "Answer:", W),
    ("Paris", "", W),
    ("carbon dioxide", "Answer: Carbon\u00a0 dioxide", R),
    ("CO2", "Answer: CO\u2082", R),
    ("Au", "Answer: AU", R),
    ("The Beatles", "Answer: the  Beatles", R),
    ("The Beatles", "Answer: Beatles", W),
    ("Beatles", "Answer: the Beatles", W),
    ("vitamin a", "Answer: Vitamin A.", R),
    ("vitamin", "Answer: Vitamin A.", W),
    ("A", "Answer: (A)", W),
    ("A", "Answer: B", W),
    ("-5", "Answer: 5", W),
    ("5", "Answer: -5", W),
    ("5", "Answer: (5)", W),
    ("5", "Answer: 5%", W),
    ("5", "Answer: $5", W),
    ("5", "Answer: 5!", W),
    ("5", "The answer is 5! That was easy.", W),
    ("5", "The answer is 5. That was easy.", R),
    ("5", "Answer: #5", W),
    ("52", "Answer: 5\u00b2", W),
    ("102", "Answer: 10\u2082", W),
    ("11/2", "Answer: 1\u00bd", W),
    ("1", "Answer: \u2460", W),
    ("C", "Answer: C#", W),
    ("C++", "Answer: C", W),
    ("C#", "Answer: `C#`.", R),
    ("n", "Answer: n!", W),
    ("y'", "Answer: y", W),
    ("[0, 1)", "Answer: [0, 1]", W),
    ("NET", "Answer: .NET", W),
    (".NET", "Answer: .net.", R),
    ("init", "Answer: __init__", W),
    ("...", "Answer: .", W),
    ("what", "Answer: what?!", W),
    ("what", "Answer: what?", W),
    ("what?", "Answer: what", R),
    ("what?", "Answer: what?", R),
    ("Paris", "Answer: ***Paris***", R),
    ("Paris", "Answer: _Paris_", R),
    ("Paris", "Answer: \u201cParis.\u201d", R),
    ("Paris", "Answer: \u00abParis\u00bb", R),
    ("Paris", "Answer: \u200bParis\u3000", R),
    ("Paris", "Answer: \uff30aris\u3002", R),
    ("Paris", "Answer: ~~Paris~~", W),
    ("Paris", "Answer: not Paris", W),
    ("Paris", "The answer is Paris? No, London.", W),
    ('"A" or "B"', 'Answer: "A" or "B"', R),
    ('A" or "B', 'Answer: "A" or "B"', W),
    ("new york", "Answer: New\u2028York", R),
    ("newyork", "Answer: New York", W),
    ("it's", "Answer: It\u2019s", R),
    ("rock 'n' roll", "Answer: rock \u2018n\u2019 roll", R),
    ("stra\u00dfe", "Answer: STRASSE", R),
    ("\ufb01sh", "Answer: fish", R),
    ("3", "Answer: three", W),
    ("!", "Answer: !", R),
    ("one\ntwo", "Answer: one\ntwo", R),
]

SETS = [
    ("2, 3, 5", "Answer: 2, 3 and 5", R),
    ("2, 3, 5", "Answer: 5; 3; 2", R),
    ("2, 3, 5", "Answer: {2, 3, 5}", R),
    ("2, 3, 5", "Answer: [5,3,2]", R),
    ("2, 3, 5", r"Answer: $\{2, 3, 5\}$", R),
    ("2, 3, 5", "Answer: 2\n3\n5", R),
    ("2, 3, 5", "Answer: 2.0, 3, 10/2.", R),
    ("2, 3, 5", "Answer: 2, 3", W),
    ("2, 3, 5", "Answer: 2, 3, 5, 7", W),
    ("2, 3, 5", "Answer: 2, 3, 4", W),
    ("1,000, 2,000", "Answer: 2,000 and 1,000", R),
    ("red, green", "Answer: Green and red", R),
    ("red, green", "Answer: red, the green", W),
    ("-1, 1", "Answer: \u00b11", R),
    ("-1, 1", r"Answer: $\pm 1$", R),
    ("-1, 1", "Answer: 1", W),
    ("-2, 3", "Answer: 2, 3", W),
    ("2, 3", "Answer: -2, 3", W),
    ("5%, 6%", "Answer: 5, 6", W),
    ("5%, 6%", "Answer: 0.05 and 0.06", R),
    ("5, 6", "Answer: 5x, 6x", W),
    ("5, 6", "Answer: 5!, 6", W),
    ("5, 6", "Answer: > 5, 6", W),
    ("5, 6", "- 5\n- 6", R),
    ("5, 6", "1. 5\n2. 6", R),
    ("-5, 6", "Answer: -5\n6", R),
    ("(1, 2), (3, 4)", "Answer: (3, 4) and (1, 2)", R),
    ("(1, 2), (3, 4)", "Answer: (1,2), (3,4)", R),
    ("(1, 2), (3, 4)", "Answer: (1, 3), (2, 4)", W),
    ("(1, 2), (3, 4)", "Answer: (2, 1), (3, 4)", W),
    ("(1, 2), (3, 4)", "Answer: [1, 2], (3, 4)", W),
    ("{1, 2}, {3}", "Answer: {2, 1}, {3}", R),
    ("C, C#", "Answer: C, C", W),
    ("x=1, x=2", "Answer: x = 2, x = 1", R),
    ("red, green", "Answer: red, blue", W),
    ("x = 1 or x = -1", "Answer: x = -1, x = 1", R),
    ("7", "Answer: 7", R),
    ("7", "", W),
    ("1, 2", "Answer: (1, 2)", W),
    ("1, 2", "Answer: [1, 2]", W),
    ("1, 2", "Answer: [1, 2)", W),
    ("red, green", 'Answer: ["red", "green"]', R),
    ("1, 2, 3", "Answer: (1, 2, 3)", W),
    ("{(1, 2)}", "Answer: (1, 2)", R),
    ("{(1, 2)}", "Answer: (2, 1)", W),
    ("{[0, 1)}", "Answer: {[0,1)}", R),
    ("{[0, 1)}", "Answer: {[0,1]}", W),
    ("1, 2", "Answer: 1, 2\n3", W),
    ("1, 2", "Answer: 1, 2\nWait, 3 as well.", W),
    ("1, 2", "Answer: 1, 2\nI doubt it.", W),
    ("1, 2", "Answer: 1, 2\n\nThese are the roots of the equation.", R),
    ("1, 2", r"\boxed{1, 2} is wrong", W),
    ("red, green", "Answer: red, green?", W),
    ("1, 2", "I don't think the answer is 1, 2", W),
]

MATHEMATICS = [
    (r"\frac{1}{2}", "Answer: 0.5", R),
    (r"\frac{1}{2}", r"\boxed{\frac{2}{4}}", R),
    ("x^2 - 1", "Answer: (x - 1)(x + 1)", R),
    ("x^2 - 1", r"Answer: $(x+1)(x-1)$", R),
    ("x^2 - 1", r"Answer: x^2 + 1", W),
    (r"2\sqrt{2}", r"Answer: $\sqrt{8}$", R),
    (r"2\sqrt{2}", r"Answer: 2.8284271247", W),
    (r"2\sqrt{2}", "Answer: 2", W),
    (r"\frac{\sqrt{3}}{3}", r"Answer: \frac{1}{\sqrt{3}}", R),
    ("[0, 1)", r"Answer: $[0,1)$", R),
    ("[0, 1)", r"Answer: $[0,1]$", W),
    (r"\{1, 2\}", r"Answer: $\{2, 1\}$", R),
    ("(1, 2)", "Answer: (1, 2)", R),
    ("(1, 2)", "Answer: (2, 1)", W),
    ("-5", r"\boxed{5}", W),
    ("5", r"\boxed{-5}", W),
    ("-x", r"\boxed{x}", W),
    (r"-\frac12", r"\boxed{\frac12}", W),
    ("(1,2)", r"\boxed{\{1,2\}}", W),
    (r"\{1,2\}", r"\boxed{(1,2)}", W),
    ("5!", r"\boxed{5}", W),
    ("5", r"\boxed{5!}", W),
    ("y'", r"\boxed{y}", W),
    ("5", r"\boxed{5\%}", W),
    ("12", r"\boxed{12!^2}", W),
    (r"\$36", r"\boxed{36}", R),
    (r"\$36", r"\boxed{\$36}", R),
    (r"\$36", "Answer: $36", R),
    (r"\$36", r"\boxed{-36}", W),
    (r"\frac{3}{4}", "Answer: \u00be", R),
    ("\u00be", r"\boxed{0.75}", R),
    (r"\text{Evelyn}", "Answer: Evelyn", R),
    (r"\text{Evelyn}", r"\boxed{\text{Evelyn}}", R),
    ("1, 2", r"\boxed{1} and \boxed{2}", R),
    ("2", r"\boxed{1} and \boxed{2}", W),
    ("2", r"\boxed{2}, or rather \boxed{3", W),
    (r"\frac{1}{2}", "Answer: **0.5**", R),
    (r"\frac{1}{2}", r"The answer is $\frac12$. That was easy.", R),
    (r"\frac{1}{2}", r"The answer is $\frac12$, because $2\cdot\frac12=1$.", R),
    (r"\frac{1}{2}", "Answer:\n\\[\n x = \\frac{1}{2}\n\\]\nas we wanted", R),
    (r"\frac{1}{2}", "Answer: not 0.5", W),
    (r"\frac{1}{2}", "Answer: 0.5? No, 0.6.", W),
    (r"\frac{1}{2}", "Answer: more than 0.5", W),
    (r"\frac{1}{2}", "Answer: 0.5 or 0.6", W),
    ("12", r"First we add.\nTherefore, the answer is: 12.", R),
    ("12", "We get x = 12.", R),
    ("12", "There are 12 of them, or so.", W),
    ("x^2", "It depends.\n\\[ x\\cdot x \\]", R),
    ("x = 3", "Answer: 3", R),
    (r"\pi", r"Answer: $\pi$", R),
    (r"\frac{\pi}{2}", r"So it is $\frac{\pi}{2}$.", R),
    ("1234", "Answer: 1,234", R),
    ("3", "Answer:", W),
    ("3", "", W),
]

CITIES = ["Paris", "London", "New York", "Rome"]
CHOICES = [
    ("A", "Answer: A", R),
    ("A", "Answer: (A)", R),
    ("A", "Answer: A.", R),
    ("A", "Answer: A)", R),
    ("A", "Answer: [A]", R),
    ("A", "Answer: **A**", R),
    ("A", "Answer: a", R),
    ("A", "Answer: (a)", R),
    ("A", r"\boxed{A}", R),
    ("A", r"Answer: $\boxed{A}$", R),
    ("A", "Answer: A. Paris", R),
    ("A", "Answer: (A) Paris", R),
    ("A", "Answer: A: Paris, as everybody knows", R),
    ("A", "Answer: A, since it lies on the Seine", R),
    ("A", "Answer: Option A", R),
    ("A", "The answer is A.", R),
    ("A", "The answer is (A).", R),
    ("A", "The correct answer is option (A), not the others", R),
    ("A", "A", R),
    ("A", "Answer: Paris", R),
    ("A", "Answer: paris.", R),
    ("Paris", "Answer: A", R),
    ("A", "I think that it is Paris.", R),
    ("A", "(B) is in England, so it must be something else.\n(A)", W),
    ("A", "It must be (A), by the Seine.", R),
    ("C", "Answer: New York", R),
    ("C", "Answer: C) New York", R),
    ("A", "Answer: B", W),
    ("A", "Answer: A or B", W),
    ("A", "Answer: A and B", W),
    ("A", "Answer: (A) or (B)", W),
    ("A", "Answer: Paris or London", W),
    ("A", "Answer: E", W),
    ("A", "Answer: A city in France", W),
    ("A", "I do not know", W),
    ("A", "", W),
    # What a sentence gives, and what it denies
    ("B", "The answer is B because it lies on the Thames.", R),
    ("C", "Answer: I think it is C", R),
    ("B", "<answer>B</answer>", R),
    ("B", "Choice B is right.", R),
    ("D", "Answer: It is not B, the answer is D", R),
    ("B", "Answer: It is not B, the answer is D", W),
    ("C", "Antwort: C", R),
    ("C", "\u7b54\u6848\uff1aC", R),
    ("B", "Answer: B is the correct answer", R),
    ("B", "\u7b54\u6848\u662f B\uff0c\u56e0\u4e3a", R),
    ("C", "The answer cannot be A. It must be C.", R),
    ("A", "Answer: A (not B)", R),
    ("A", "Answer: A rather than B", R),
    ("A", "Answer: I would rule out B, C, and D, leaving A.", R),
    ("C", "Answer: B. Wait, actually C.", R),
    ("B", "Answer: B. Wait, actually C.", W),
    ("B", "Answer: B\n\nWait, that's not right. The answer is C.", W),
    ("B", "Answer: B. However, C is also correct.", W),
    ("A", "The answer is definitely not A.", W),
    ("B", "Answer: Not London", W),
    ("B", "Answer: London is not right", W),
    ("B", "Answer: anything but London", W),
    ("B", "Answer: I doubt that it is B", W),
    ("B", "Answer: B (New York)", W),
    ("B", "Answer: B. New York", W),
    ("C", "Answer: B New York", W),
    ("A", "Answer: A. London", W),
    ("B", "Answer: If it rains, B, else C", W),
    ("A", "A) Paris\nB) London\nC) New York\nD) Rome", W),
    ("C", "A. Paris is wrong. B. London is wrong. So option C.", R),
    ("A", "A. Paris is wrong. B. London is wrong. So option C.", W),
    ("B", "Answer: B+", W),
    ("C", "Answer: C++", W),
    ("C", "Answer: C#", W),
    ("B", "Answer: -B", W),
    ("B", "Answer: B'", W),
    ("B", "Answer: B > C", W),
    ("C", "Answer: B C", W),
    ("C", r"\boxed{B \cup C}", W),
    ("B", r"\boxed{\overline{B}}", W),
    ("C", "Answer: Vitamin C", W),
    ("C", "It's between B and C.", W),
]

REGEX = [
    ({}, r"\d{3}-\d{4}", "Answer: call 555-1234 now", R),
    ({}, r"\d{3}-\d{4}", "Answer: 5551234", W),
    ({"full_match": True}, r"\d{3}-\d{4}", "Answer: 555-1234", R),
    ({"full_match": True}, r"\d{3}-\d{4}", "Answer: call 555-1234", W),
    ({}, "paris", "Answer: Paris", W),
    ({"ignore_case": True}, "paris", "Answer: Paris", R),
    ({}, "^Reasoning:", "Reasoning:\n1. x\nAnswer: y", W),
    ({"whole_output": True}, "^Reasoning:", "Reasoning:\n1. x\nAnswer: y", R),
    ({}, r"\p{Lu}\w+", "Answer: \u00c9mile", R),
    ({}, r"^(?!.*London)", "Answer: Paris", R),
    ({}, r"^(?!.*London)", "Answer:", W),
]

CONTAINS = [
    ({}, ["cat"], "Answer: A Cat sat.", R),
    ({}, ["cat"], "Answer: concatenate", R),
    ({"whole_words": True}, ["cat"], "Answer: concatenate", W),
    ({"whole_words": True}, ["cat"], "Answer: the cat.", R),
    ({"case_sensitive": True}, ["cat"], "Answer: Cat", W),
    ({}, ["cat", "dog"], "Answer: a dog", R),
    ({"all": True}, ["cat", "dog"], "Answer: a dog", W),
    ({"all": True}, ["cat", "dog"], "Answer: a dog and a cat", R),
    ({}, ["New  York"], "Answer: in new\nyork", R),
    ({}, ["London"], "It is not London.\nAnswer: Paris", W),
    ({"whole_output": True}, ["London"], "It is not London.\nAnswer: Paris", R),
    # A number is no part of another one.
    ({}, ["5"], "Answer: It is 5.", R),
    ({}, ["5"], "Answer: 5 kg, or 5kg", R),
    ({}, ["5"], "Answer: $5", R),
    ({}, ["5"], "Answer: 5, 6", R),
    ({}, ["5"], "Answer: 10-5", R),
    ({}, ["5"], "Answer: I have 5!", R),
    ({}, ["5"], "Answer: -5", W),
    ({}, ["5"], "Answer: \u22125 degrees", W),
    ({}, ["5"], "Answer: x = - 5", W),
    ({}, ["5"], "Answer: minus 5", W),
    ({}, ["5"], "Answer: 5 million", W),
    ({}, ["5"], "Answer: 5k", W),
    ({}, ["5"], "Answer: 5\u00bd", W),
    ({}, ["5"], "Answer: 5 1/2", W),
    ({}, ["5"], "Answer: \u221a5", W),
    ({}, ["5"], "Answer: 5:30", W),
    ({}, ["5"], "Answer: 5 \u00d7 10^3", W),
    ({}, ["5"], "Answer: -$5", W),
    ({}, ["5"], "Answer: 15", W),
    ({}, ["5"], "Answer: 1.5", W),
    ({}, ["5"], "Answer: .5", W),
    ({}, ["5"], "Answer: 5.5", W),
    ({}, ["5"], "Answer: 5,000", W),
    ({}, ["678"], "Answer: 5,678", W),
    ({}, ["5"], "Answer: 5/7", W),
    ({}, ["7"], "Answer: 5/7", W),
    ({}, ["5"], "Answer: 5%", W),
    ({}, ["5"], r"Answer: 5 \%", W),
    ({}, ["5"], "Answer: 5 percent", W),
    ({}, ["5"], "Answer: 5!", W),
    ({}, ["5"], "Answer: 5^2", W),
    ({}, ["5"], "Answer: x^5", W),
    ({}, ["5"], "Answer: 5\u00b2", W),
    ({}, ["5"], "Answer: 1e-5", W),
    ({}, ["-5"], "Answer: -5 or so", R),
    ({}, ["-5"], "Answer: 5", W),
    ({}, ["5%"], "Answer: 15%", W),
    ({}, ["5"], "Answer: -5, then 5", R),
    ({}, ["cat5"], "Answer: cat5e", R),
    ({}, ["5"], "Answer: 5x", W),
    ({}, ["5"], "Answer: \u00bd5", W),
    ({}, ["-5"], "Answer: 10-5", W),
    ({}, ["-5"], "Answer: 10 -5", W),
    ({}, ["-5"], "Answer: it is -5", R),
    ({}, ["5"], "Answer: 5M", W),
    ({}, ["5"], "Answer: 5m", R),
    ({}, ["5"], "Answer: the 5th", R),
    ({}, ["5"], "Answer: x5", W),
    ({}, ["5"], "Answer: 5(x+1)", W),
    ({}, ["5"], "Answer: moins 5", W),
    ({}, ["5"], "Answer: 5 000", W),
    ({}, ["5"], "Answer: 5\u4e07", W),
    ({}, ["5"], "Answer: 5_2", W),
    ({}, ["5"], r"Answer: \sqrt{5}", W),
    ({"whole_words": True}, ["C"], "Answer: C#", W),
    ({"whole_words": True}, ["C"], "Answer: C++", W),
    ({"whole_words": True}, ["C++"], "Answer: in C++.", R),
    ({"whole_words": True}, ["C#"], "Answer: C", W),
    ({"whole_words": True}, ["C"], "Answer: **C**", R),
    ({"whole_words": True}, ["C"], "Answer: (C)", R),
    ({"whole_words": True}, ["A"], "Answer: A-", W),
    ({"whole_words": True}, ["A"], "Answer: A - the first", R),
    ({"whole_words": True}, ["a"], "Answer: a+b", R),
    ({"whole_words": True}, ["x"], "Answer: -x", W),
    ({"whole_words": True}, ["x"], "Answer: y-x", R),
    ({"whole_words": True}, ["y"], "Answer: y'", W),
    ({"whole_words": True}, ["y"], "Answer: 'y'", R),
    ({"whole_words": True}, ["cat"], "Answer: the cat's", R),
    ({"whole_words": True}, ["can"], "Answer: it can't", W),
    ({"whole_words": True}, ["NET"], "Answer: .NET", W),
    ({"whole_words": True}, ["Node"], "Answer: Node.js", W),
    ({"whole_words": True}, ["well"], "Answer: well-known", R),
]

FORMAT = [
    ({}, "Reasoning:\n1. One.\n2. Two.\nAnswer: 3", R),
    ({}, "Reasoning:\n1. One.\nAnswer: 3\n", R),
    ({}, "Reasoning:\n1. One.\n3. Two.\nAnswer: 3", W),
    ({}, "Reasoning:\nOne.\nAnswer: 3", W),
    ({}, "Reasoning:\n1. One.\nAnswer:", W),
    ({}, "Reasoning:\n1. One.\n3", W),
    ({}, "1. One.\nAnswer: 3", W),
    ({}, "Answer: 3", W),
    ({}, "Reasoning:\n1. One.\nAnswer: 3\nQuestion: more?", W),
    ({}, "Reasoning:\nAnswer: 3", W),
    ({"min_steps": 0}, "Answer: 3", R),
    ({"min_steps": 2}, "Reasoning:\n1. One.\nAnswer: 3", W),
    ({"min_steps": 2}, "Reasoning:\n1. One.\n2. Two.\nAnswer: 3", R),
    ({"reasoning_style": "answer-only"}, "Answer: 3", R),
    ({"reasoning_style": "answer-only"}, "So:\nAnswer: 3", W),
    ({"reasoning_style": "answer-only"}, "3", W),
]

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
}
JSON = [
    ({"schema": PERSON}, [], '{"name": "Ada", "age": 36}', R),
    ({"schema": PERSON}, [], 'Answer: {"name": "Ada"}', R),
    ({"schema": PERSON}, [], 'Here it is:\n```json\n{"name": "Ada"}\n```\nDone.', R),
    ({"schema": PERSON}, [], '```\n{"name": "Ada"}\n```', R),
    ({"schema": PERSON}, [], '{"age": 36}', W),
    ({"schema": PERSON}, [], '{"name": "Ada", "age": -1}', W),
    ({"schema": PERSON}, [], '{"name": "Ada"', W),
    ({"schema": PERSON}, [], "Ada", W),
    ({"schema": PERSON}, [], "", W),
    ({"schema": PERSON}, ['{"age": 36, "name": "Ada"}'], '{"name": "Ada", "age": 36.0}', R),
    ({"schema": PERSON}, ['{"name": "Ada"}'], '{"name": "Bob"}', W),
    ({"schema": {"type": "number"}}, [], "NaN", W),
    ({"schema": {"title": "any"}}, ["1"], "true", W),
    ({"schema": {"title": "any"}}, ["1"], "1.0", R),
    ({"schema": {"title": "any"}}, ["[0]"], "[false]", W),
    ({"schema": {"title": "any"}}, ["0.1"], "0.10000000000000000001", W),
    ({"schema": {"title": "any"}}, ["1e400"], "1e500", W),
    ({"schema": {"title": "any"}}, ['{"a": 2}'], '{"a": 1, "a": 2}', W),
]

F1 = [
    ({}, "the cat sat", "Answer: The cat sat.", 1.0, R),
    ({}, "the cat sat", "Answer: a cat", 2 / 3, R),
    ({}, "the cat sat on it", "Answer: cat", 0.4, W),
    ({"threshold": 0.4}, "the cat sat on it", "Answer: cat", 0.4, R),
    ({}, "cat cat", "Answer: cat", 2 / 3, R),
    ({}, "cat", "Answer: dog", 0.0, W),
    ({}, "cat", "", 0.0, W),
    ({}, "the A", "Answer: an", 0.0, W),
    # Signs that carry meaning stay
    ({}, "5", "Answer: 5.", 1.0, R),
    ({}, "5", "Answer: (5)", 1.0, R),
    ({}, "1912 to 1915", "Answer: (1912 to 1915)", 1.0, R),
    ({}, "-5", "Answer: 5", 0.0, W),
    ({}, "5", "Answer: 5%", 0.0, W),
    ({}, "15", "Answer: 1.5", 0.0, W),
    ({}, "34", "Answer: 3/4", 0.0, W),
    ({}, "5", "Answer: 5!", 0.0, W),
    ({}, "[0,1)", "Answer: [0,1]", 0.0, W),
    ({}, "(1,2)", "Answer: {1,2}", 0.0, W),
    ({}, "C#", "Answer: C", 0.0, W),
    ({}, "C#", "Answer: `C#`.", 1.0, R),
    ({}, "-x", "Answer: x", 0.0, W),
    ({}, "y'", "Answer: y", 0.0, W),
    ({}, "y", "Answer: 'y'", 1.0, R),
    ({}, r"-\sqrt{x}", r"Answer: \sqrt{x}", 0.0, W),
    ({}, "52", "Answer: 5\u00b2", 0.0, W),
    ({}, "yes", "Answer: Yes!", 1.0, R),
    ({}, "well-known", "Answer: wellknown", 1.0, R),
    ({}, "it's", "Answer: It\u2019s", 1.0, R),
]


def graded(kind: str, accepted: list[str], output: str, **settings: Any) -> Verdict:
    """The verdict of a grader of ``kind`` with ``settings``."""
    item = EvalItem(id="q", prompt="?", accepted_answers=tuple(accepted), grader={"kind": kind, **settings})
    assert list(GRADING.problems(item)) == []
    return GRADING.grade(item, output)


def cases() -> Iterator[tuple[str, Mapping[str, Any], list[str], str, bool]]:
    """Every row, as (kind, settings, accepted answers, output, right or wrong)."""
    plain = {"numeric": EXACT, "text": TEXT, "set": SETS, "math": MATHEMATICS}
    for kind, rows in plain.items():
        yield from ((kind, {}, [accepted], output, right) for accepted, output, right in rows)
    for accepted, output, right in CHOICES:
        yield "multiple_choice", {"options": CITIES}, [accepted], output, right
    for kind, some in {"numeric": TOLERANT, "regex": REGEX}.items():
        yield from ((kind, settings, [accepted], output, right) for settings, accepted, output, right in some)
    for kind, listed in {"contains": CONTAINS, "json_schema": JSON}.items():
        yield from ((kind, settings, accepted, output, right) for settings, accepted, output, right in listed)
    yield from (("format", settings, [], output, right) for settings, output, right in FORMAT)
    for settings, accepted, output, _, right in F1:
        yield "token_f1", settings, [accepted], output, right


CASES = list(cases())


@pytest.mark.parametrize(("kind", "settings", "accepted", "output", "right"), CASES)
def test_verdict(
    kind: str, settings: Mapping[str, Any], accepted: list[str], output: str, right: bool
) -> None:
    verdict = graded(kind, accepted, output, **settings)
    assert (verdict.correct, verdict.error) == (right, "")


def test_the_table_is_long_enough_and_no_row_stands_twice() -> None:
    assert len(CASES) >= 150
    assert len({repr(case) for case in CASES}) == len(CASES)
    # Of each kind there are right ones and wrong ones: none says the same to everything.
    for kind in {case[0] for case in CASES}:
        assert {right for kind_, *_, right in CASES if kind_ == kind} == {True, False}


@pytest.mark.parametrize(("settings", "accepted", "output", "score", "right"), F1)
def test_words_in_common_give_a_score(
    settings: Mapping[str, Any], accepted: str, output: str, score: float, right: bool
) -> None:
    verdict = graded("token_f1", [accepted], output, **settings)
    assert verdict.score == pytest.approx(score)
    assert verdict.correct is right


def test_an_unmarked_formula_counts_where_the_model_came_to_its_end_and_wrote_it_itself() -> None:
    def of(prompt: str, output: str, *, cut: bool = False) -> Verdict:
        item = EvalItem(id="q", prompt=prompt, accepted_answers=("8",), grader={"kind": "math"})
        return GRADING.grade(item, output, cut=cut)

    assert of("What is 48 / 6?", "So it is 8.").correct
    assert of("What is 48 / 6?", "So it is 8.").unmarked
    assert not of("What is 48 / 6?", "So it is 8.", cut=True).correct
    assert not of("What is 48 / 6?", "48/6").correct
    assert not of("What is $48 / 6$?", "It is $48/6$.").correct
    copied = of("What is 48 / 6?", r"\boxed{48/6}")
    assert (copied.correct, copied.explanation) == (False, "it only repeats the question")
    assert of("What is 48 / 6?", r"\boxed{16/2}").correct
    assert of("Is it 7 or 8?", "8").correct
    assert not of("What is 48 / 6?", r"\boxed{8}").unmarked


def test_entries_and_words_in_part_give_a_score_in_part() -> None:
    assert graded("set", ["2, 3, 5"], "Answer: 2, 3").score == pytest.approx(0.8)
    assert graded("contains", ["cat", "dog"], "Answer: a dog", all=True).score == 0.5
    assert graded("numeric", ["2"], "Answer: 2").score is None


def test_any_accepted_answer_is_right() -> None:
    assert graded("text", ["gold", "Au"], "Answer: au").correct
    assert graded("numeric", ["1/4", "25%"], "Answer: 0.25").correct
    assert graded("math", ["x", "y"], "Answer: $y$").correct
    assert graded("set", ["1, 2", "3, 4"], "Answer: 4, 3").correct


def test_the_answer_that_was_read_is_shown() -> None:
    assert graded("numeric", ["7"], "Answer: about $1,250.50 a month").extracted_answer == "$1,250.50"
    assert graded("numeric", ["7"], "Answer: 5 or 6").extracted_answer == "5 or 6"
    assert graded("numeric", ["7"], "nothing").extracted_answer == ""
    assert graded("text", ["x"], "Answer: **Paris.**\nBye").extracted_answer == "**Paris.**"
    assert graded("multiple_choice", ["A"], "Answer: london", options=CITIES).extracted_answer == "B"
    assert graded("math", ["7"], "So it is $\\frac{1}{2}$.").extracted_answer == "$\\frac{1}{2}$."
    assert graded("math", ["7"], "So it is $\\frac{1}{2}$.").unmarked
    assert graded("regex", [r"\d+"], "Answer: call 42").extracted_answer == "42"


def test_what_is_wrong_with_a_form_or_a_document_is_told() -> None:
    wrong = graded("format", [], "Reasoning:\n1. One.\n3. Two.\nAnswer: 3")
    assert wrong.explanation == "line 3 is not step 2, '2. ...'"
    wrong = graded("json_schema", [], '{"name": 3}', schema=PERSON)
    assert wrong.explanation == "$.name: 3 is not of type 'string'"
    wrong = graded("numeric", ["5"], "Answer: 5 g", units=["kg"])
    assert wrong.explanation == "the number is right, its unit is not"


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("Answer: 18", R),
        ("9 and 9 is\n#### 18", R),
        (r"So it is $\boxed{18}$.", R),
        ("The answer is 18.", R),
        ("She has 18", W),
        ("First 9,\nthen 18", W),
        ("18", W),
        ("Answer: 17\n18", W),
    ],
)
def test_a_number_without_a_mark_does_not_count_where_answers_must_be_marked(
    output: str, right: bool
) -> None:
    assert graded("numeric", ["18"], output, marked=True).correct is right
    assert graded("numeric", ["18"], output).correct is (output != "Answer: 17\n18")
