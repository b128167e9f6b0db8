"""Grades IFEval's answers: right when every instruction was followed, as the benchmark's own code checks it.

It is sent to the evaluator as it stands, and its digest is in the grader's version. The instructions for
which the benchmark's code needs a tokenizer or a guess at the language (number_sentences, change_case,
language) are not here.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

NUMBER, TEXT, TEXTS = int, str, list
RELATIONS = ("less than", "at least")


def compared(count: float, relation: str, wanted: float) -> bool:
    return count < wanted if relation == "less than" else count >= wanted


def existence(text: str, keywords: list[str]) -> bool:
    return all(re.search(word, text, re.IGNORECASE) for word in keywords)


def frequency(text: str, keyword: str, frequency: float, relation: str) -> bool:
    return compared(len(re.findall(keyword.strip(), text, re.IGNORECASE)), relation, frequency)


def forbidden_words(text: str, forbidden_words: list[str]) -> bool:
    return not any(re.search(r"\b" + word + r"\b", text, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(text: str, letter: str, let_frequency: float, let_relation: str) -> bool:
    return compared(text.lower().count(letter.lower()), let_relation, let_frequency)


def number_words(text: str, num_words: float, relation: str) -> bool:
    return compared(len(re.findall(r"\w+", text)), relation, num_words)


def number_paragraphs(text: str, num_paragraphs: float) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    if any(not part.strip() for part in parts[1:-1]):
        return False
    return sum(bool(part.strip()) for part in parts) == num_paragraphs


def nth_paragraph_first_word(text: str, num_paragraphs: float, nth_paragraph: float, first_word: str) -> bool:
    parts = re.split(r"\n\n", text)
    count = sum(bool(part.strip()) for part in parts)
    if nth_paragraph > count or not parts[int(nth_paragraph) - 1].strip():
        return False
    word = parts[int(nth_paragraph) - 1].split()[0].lstrip("'").lstrip('"')
    first = re.split("[.,?!'\"]", word)[0].lower()
    return count == num_paragraphs and first == first_word.lower()


def number_placeholders(text: str, num_placeholders: float) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def postscript(text: str, postscript_marker: str) -> bool:
    known = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}
    marker = postscript_marker.strip()
    pattern = known.get(marker, r"\s*" + marker.lower() + r".*$")
    return re.search(pattern, text.lower(), re.MULTILINE) is not None


def number_bullet_lists(text: str, num_bullets: float) -> bool:
    stars = re.findall(r"^\s*\*[^\*].*$", text, re.MULTILINE)
    return len(stars) + len(re.findall(r"^\s*-.*$", text, re.MULTILINE)) == num_bullets


def constrained_response(text: str) -> bool:
    return any(f"My answer is {answer}." in text for answer in ("yes", "no", "maybe"))


def number_highlighted_sections(text: str, num_highlights: float) -> bool:
    single = [part.strip("*").strip() for part in re.findall(r"\*[^\n\*]*\*", text)]
    double = [part[2:-2].strip() for part in re.findall(r"\*\*[^\n\*]*\*\*", text)]
    return sum(map(bool, [*single, *double])) >= num_highlights


def multiple_sections(text: str, section_spliter: str, num_sections: float) -> bool:
    return len(re.split(r"\s?" + section_spliter.strip() + r"\s?\d+\s?", text)) - 1 >= num_sections


def json_format(text: str) -> bool:
    bare = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        bare = bare.removeprefix(fence)
    try:
        json.loads(bare.removesuffix("```").strip())
    except ValueError:
        return False
    return True


def title(text: str) -> bool:
    return any(found.lstrip("<").rstrip(">").strip() for found in re.findall(r"<<[^\n]+>>", text))


def two_responses(text: str) -> bool:
    parts = text.split("******")
    if any(not part.strip() for part in parts[1:-1]):
        return False
    answers = [part.strip() for part in parts if part.strip()]
    return len(answers) == 2 and answers[0] != answers[1]


def repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(text: str) -> bool:
    bare = text.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


def no_comma(text: str) -> bool:
    return "," not in text


# Of each instruction: its check, and the settings that it has, by their types.
CHECKS: dict[str, tuple[Callable[..., bool], dict[str, Any]]] = {
    "keywords:existence": (existence, {"keywords": TEXTS}),
    "keywords:frequency": (frequency, {"keyword": TEXT, "frequency": NUMBER, "relation": RELATIONS}),
    "keywords:forbidden_words": (forbidden_words, {"forbidden_words": TEXTS}),
    "keywords:letter_frequency": (
        letter_frequency,
        {"letter": TEXT, "let_frequency": NUMBER, "let_relation": RELATIONS},
    ),
    "length_constraints:number_words": (number_words, {"num_words": NUMBER, "relation": RELATIONS}),
    "length_constraints:number_paragraphs": (number_paragraphs, {"num_paragraphs": NUMBER}),
    "length_constraints:nth_paragraph_first_word": (
        nth_paragraph_first_word,
        {"num_paragraphs": NUMBER, "nth_paragraph": NUMBER, "first_word": TEXT},
    ),
    "detectable_content:number_placeholders": (number_placeholders, {"num_placeholders": NUMBER}),
    "detectable_content:postscript": (postscript, {"postscript_marker": TEXT}),
    "detectable_format:number_bullet_lists": (number_bullet_lists, {"num_bullets": NUMBER}),
    "detectable_format:constrained_response": (constrained_response, {}),
    "detectable_format:number_highlighted_sections": (
        number_highlighted_sections,
        {"num_highlights": NUMBER},
    ),
    "detectable_format:multiple_sections": (
        multiple_sections,
        {"section_spliter": TEXT, "num_sections": NUMBER},
    ),
    "detectable_format:json_format": (json_format, {}),
    "detectable_format:title": (title, {}),
    "combination:two_responses": (two_responses, {}),
    "combination:repeat_prompt": (repeat_prompt, {"prompt_to_repeat": TEXT}),
    "startend:end_checker": (end_checker, {"end_phrase": TEXT}),
    "startend:quotation": (quotation, {}),
    "punctuation:no_comma": (no_comma, {}),
}


def wrong_setting(instruction: str, settings: Mapping[str, Any]) -> str | None:
    """What is wrong with the settings of a known instruction, None if nothing is."""
    wanted = CHECKS[instruction][1]
    if settings.keys() != wanted.keys():
        return f"{instruction} has the settings {sorted(settings)}; {sorted(wanted)} would be right"
    for name, kind in wanted.items():
        value = settings[name]
        right = value in RELATIONS if kind is RELATIONS else isinstance(value, kind) and bool(value)
        if kind is NUMBER:
            right = isinstance(value, int | float) and not isinstance(value, bool)
            right = right and value == int(value) and value >= 0
        if kind is TEXTS:
            right = right and all(isinstance(word, str) and word for word in value)
        # In place of these the benchmark's own code draws another at random.
        right = right and (name != "letter" or len(value.strip()) == 1)
        if not right or (name == "nth_paragraph" and not 0 < value <= settings["num_paragraphs"]):
            return f"{instruction} has {value!r} as {name}"
    return None


def grade(output: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """Right when all instructions of the item were followed (IFEval's strict accuracy of prompts)."""
    broken = []
    for instruction in item["metadata"]["instructions"]:
        check, _ = CHECKS[instruction["id"]]
        if not output.strip() or not check(output, **instruction["settings"]):
            broken.append(instruction["id"])
    return {"score": not broken, "explanation": f"not followed: {', '.join(broken)}" if broken else ""}
