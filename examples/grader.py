"""Graders of one's own: tunix-rt grade "2 + 2 = 4" --accepted 4 --grader-file examples/grader.py"""


def grade(output, item):
    """Right when the last line ends in an accepted answer."""
    last_line = output.strip().rpartition("\n")[2].rstrip(".")
    return any(last_line.endswith(answer) for answer in item["accepted_answers"])


def short_and_right(output, item):
    """As `grade`, and worth less the more words it takes."""
    words = len(output.split())
    right = grade(output, item)
    return {"score": min(1.0, 20 / max(words, 1)) if right else 0.0, "explanation": f"{words} words"}
